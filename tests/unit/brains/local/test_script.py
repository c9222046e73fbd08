"""The script language: branches on real results, loops with a limit, refuses what is malformed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import script
from handiwork.brains.local.models import Text, ToolCall, ToolResult
from handiwork.brains.local.script import Run, ScriptError, ScriptFailedError, parse


def turns(*steps) -> str:
    return json.dumps({"turns": [{"steps": list(steps)}]})


def play(source: str, message: str, *results: ToolResult | list[ToolResult]) -> list:
    """Run a turn, answering each response's calls in order; the scratch goes through JSON."""
    program = parse(source)
    run = Run(program, {})
    run.begin(message)
    run.go_on()
    seen = [*run.blocks]
    for result in results:
        run = Run(program, json.loads(json.dumps(run.scratch())))
        run.take(result if isinstance(result, list) else [result])
        run.go_on()
        seen += run.blocks
    return seen


def ok(text: str) -> ToolResult:
    return ToolResult("bash", text)


def bad(text: str) -> ToolResult:
    return ToolResult("bash", text, True)


def bash(command: str) -> dict:
    return {"call": {"tool": "bash", "input": {"command": command}}}


def commands(blocks: list) -> list[str]:
    return [block.input["command"] for block in blocks if isinstance(block, ToolCall)]


def test_text_and_a_call_make_one_response():
    blocks = play(turns({"say": "hello"}, bash("ls"), {"say": "after"}), "go")
    assert blocks == [Text("hello"), ToolCall("bash", {"command": "ls"})]


def test_the_users_text_is_substituted_everywhere_in_the_input():
    step = {"call": {"tool": "t", "input": {"a": ["${text}", {"b": "x ${text}"}], "n": 1}}}
    assert play(turns(step), "hi")[0].input == {"a": ["hi", {"b": "x hi"}], "n": 1}


def test_dollar_signs_of_the_shell_are_left_alone():
    assert commands(play(turns(bash("echo $HOME ${HOME} $${text}")), "hi")) == [
        "echo $HOME ${HOME} ${text}"
    ]


@pytest.mark.parametrize(
    ("result", "said"), [(bad("1 failed: NameError x"), "broken"), (ok("3 passed"), "green")]
)
def test_it_branches_on_the_real_result(result, said):
    source = turns(
        bash("pytest"),
        {
            "if": {"is_error": True, "contains": "NameError"},
            "then": [{"say": "broken"}],
            "else": [{"say": "green"}],
        },
    )
    assert play(source, "go", result)[-1] == Text(said)


def test_it_edits_what_the_real_failure_names_and_runs_again():
    source = turns(
        {
            "repeat": {
                "limit": 5,
                "until": {"contains": "passed"},
                "steps": [
                    bash("pytest"),
                    {
                        "if": {"contains": "passed"},
                        "then": [{"say": "green"}],
                        "else": [
                            {"capture": {"name": "line", "pattern": r"py:(\d+)"}},
                            bash("sed -i ${line}d a.py"),
                        ],
                    },
                ],
            }
        }
    )
    blocks = play(source, "go", bad("a.py:7: E"), ok(""), bad("a.py:3: E"), ok(""), ok("2 passed"))
    assert commands(blocks) == ["pytest", "sed -i 7d a.py", "pytest", "sed -i 3d a.py", "pytest"]
    assert blocks[-1] == Text("green")


def test_a_loop_ends_at_its_limit():
    source = turns({"repeat": {"limit": 2, "steps": [bash("x")]}}, {"say": "done"})
    blocks = play(source, "go", ok("1"), ok("2"))
    assert [type(block) for block in blocks] == [ToolCall, ToolCall, Text]


def test_while_is_tested_before_each_pass_and_nested_loops_start_anew():
    inner = {"repeat": {"limit": 2, "steps": [bash("in")]}}
    source = turns(
        {"repeat": {"limit": 2, "while": {"of": "text", "contains": "go"}, "steps": [inner]}}
    )
    assert commands(play(source, "go", *[ok("")] * 4)) == ["in"] * 4
    assert play(source, "no") == []


def test_parallel_calls_save_their_results_by_name():
    source = turns(
        {"calls": [{"tool": "a", "save": "one"}, {"tool": "b", "save": "two"}]},
        {"if": {"of": "two", "is_error": True}, "then": [{"say": "${two}/${one}"}]},
    )
    assert play(source, "go", [ok("1"), bad("2")])[-1] == Text("2/1")


def test_conditions_combine():
    condition = {
        "of": "text",
        "any": [{"of": "text", "equals": "a"}, {"of": "text", "matches": "^b+$"}],
        "not": {"of": "text", "contains": "bbb"},
        "all": [{"of": "text", "is_error": False}],
    }
    source = turns({"if": condition, "then": [{"say": "y"}], "else": [{"say": "n"}]})
    assert [play(source, text)[0].text for text in ("a", "bb", "bbb", "c")] == ["y", "y", "n", "n"]


def test_capture_falls_back_to_its_default_or_fails():
    with_default = {"capture": {"name": "x", "of": "text", "pattern": "z", "default": "d"}}
    assert play(turns(with_default, {"say": "${x}"}), "go") == [Text("d")]
    del with_default["capture"]["default"]
    with pytest.raises(ScriptFailedError, match="capture 'x'"):
        play(turns(with_default), "go")


def test_set_fail_and_end():
    assert play(
        turns({"set": {"x": "<${text}>"}}, {"say": "${x}"}, {"end": True}, {"say": "no"}), "t"
    ) == [Text("<t>")]
    with pytest.raises(ScriptFailedError, match="no luck today"):
        play(turns({"fail": "no luck ${text}"}), "today")


def test_each_message_runs_its_turn_and_the_last_repeats():
    program = parse(
        json.dumps({"turns": [{"steps": [{"say": "1"}]}, {"steps": [{"say": "2 ${text}"}]}]})
    )
    scratch, said = {}, []
    for message in ("a", "b", "c"):
        run = Run(program, scratch)
        run.begin(message)
        run.go_on()
        said += [block.text for block in run.blocks]
        scratch = run.scratch()
    assert said == ["1", "2 b", "2 c"]


def test_a_loop_without_calls_is_cut():
    inner = {"repeat": {"limit": 1000, "steps": [{"set": {"x": "y"}}]}}
    with pytest.raises(ScriptFailedError, match="without a tool call"):
        play(turns({"repeat": {"limit": 1000, "steps": [inner]}}), "go")


def test_a_text_that_grows_is_cut():
    grow = {"repeat": {"limit": 100, "steps": [{"set": {"x": "${x}${x}"}}]}}
    with pytest.raises(ScriptFailedError, match="grew"):
        play(turns({"set": {"x": "0123456789"}}, grow), "go")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("{", "not valid JSON"),
        ("You are a helpful assistant", "not valid JSON"),
        ("[]", "one key"),
        ('{"turns": []}', "at least one turn"),
        ('{"turns": [{"steps": 1}]}', r"turns\[0\]\.steps: must be a list"),
        ('{"turns": [{"step": []}]}', r"turns\[0\]: must be"),
        (turns({"say": "a"}, {"shout": "b"}), r"turns\[0\]\.steps\[1\]: must be an object"),
        (turns({"say": "a", "end": True}), r"steps\[0\]: must be an object with one of"),
        (turns({"say": 1}), r"steps\[0\]: Expected `str`"),
        (turns({"call": {"input": {}}}), r"steps\[0\]: .*`tool`"),
        (turns({"call": {"tool": "t", "inputs": {}}}), r"steps\[0\]: .*`inputs`"),
        (turns({"calls": []}), r"steps\[0\]: a step makes"),
        (turns({"say": "${nobody}"}), r"steps\[0\]: nothing saves.*'nobody'"),
        (turns({"set": {"text": "x"}}), r"steps\[0\]: 'text' cannot be a name"),
        (turns({"if": {}, "then": []}), r"steps\[0\]\.if: needs one of"),
        (
            turns({"if": {"contains": "x"}, "then": [{"say": "a"}, {"what": 1}]}),
            r"turns\[0\]\.steps\[0\]\.then\[1\]",
        ),
        (turns({"repeat": {"limit": 0, "steps": []}}), r"repeat\.limit"),
        (turns({"repeat": {"steps": []}}), r"steps\[0\]: .*`limit`"),
        (turns({"if": {"matches": "("}, "then": []}), "not a regular expression"),
        (turns({"capture": {"name": "x", "pattern": "("}}), "not a regular expression"),
        (turns(*[{"say": "x"}] * 1001), r"steps\[1000\]: a script has at most"),
    ],
)
def test_a_malformed_script_is_refused_with_its_place(source, place):
    with pytest.raises(ScriptError, match=place):
        parse(source)


def test_deep_nesting_is_refused():
    step = {"say": "x"}
    for _ in range(script.MAX_DEPTH + 1):
        step = {"if": {"contains": "x"}, "then": [step]}
    with pytest.raises(ScriptError, match="nested"):
        parse(turns(step))
    with pytest.raises(ScriptError):
        parse('{"turns": ' + "[" * 100_000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["say", "call", "calls", "if", "then", "repeat", "steps", "limit", "tool"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4))
def test_any_json_is_a_script_or_refused(steps):
    try:
        program = parse(turns(*steps))
    except ScriptError:
        return
    run = Run(program, {})
    run.begin("x")
    try:
        run.go_on()
    except ScriptFailedError:
        return
