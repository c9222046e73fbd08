"""`handiwork sandbox …`: a sandbox from its making to its end; a command's output is ours."""

import json

from handiwork.model.sandbox import OUT_OF_MEMORY


def test_its_life(api, handiwork) -> None:
    made = handiwork("sandbox", "create")
    assert (made.code, made.err) == (0, "")
    sandbox_id = made.out.strip()
    (row,) = json.loads(handiwork("sandbox", "list", "--json").out)
    assert (row["id"], row["state"], row["tier"]) == (sandbox_id, "running", "namespace")
    assert f"id  {sandbox_id}\n" in handiwork("sandbox", "show", sandbox_id).out
    for verb, state in [("sleep", "sleeping"), ("wake", "running"), ("delete", "gone")]:
        assert handiwork("sandbox", verb, sandbox_id).code == 0
        shown = json.loads(handiwork("sandbox", "show", sandbox_id, "--json").out)
        assert shown["state"] == state
    assert handiwork("sandbox", "list", "--json").out == "[]\n"


def test_a_kill_for_memory_is_told(api, handiwork, typed) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    typed(b"")
    shown = handiwork("sandbox", "shell", sandbox_id, "make")
    assert shown.code == 2
    assert shown.err.endswith(f"handiwork: {OUT_OF_MEMORY}\n")


def test_ps(api, handiwork) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    told = handiwork("sandbox", "ps", sandbox_id)
    assert told.code == 0
    assert "serve" in told.out
    assert "127.0.0.1:80" in told.out
    assert "somebody listens on 127.0.0.1:80" in told.out
    table = json.loads(handiwork("sandbox", "ps", sandbox_id, "--json").out)
    assert [one["pid"] for one in table["listeners"]] == [7, 0]
    handiwork("sandbox", "sleep", sandbox_id)
    slept = handiwork("sandbox", "ps", sandbox_id)
    assert (slept.code, slept.out) == (1, "")
    assert "nothing runs until it wakes" in slept.err


def test_watch(api, handiwork) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    told = handiwork("sandbox", "watch", sandbox_id, "/workspace")
    assert (told.code, told.out, told.err) == (0, "created a\ufffd/\noverflow \n", "")
    assert handiwork("sandbox", "watch", sandbox_id, "/none").code == 1


def test_what_is_not_there(api, handiwork) -> None:
    for arguments in (
        ("create", "--tier", "docker"),
        ("create", "--policy", "none"),
        ("show", "sbx_none"),
        ("exec", "sbx_none", "true"),
        ("delete", "sbx_none"),
        ("forward", "sbx_none", "80"),
    ):
        done = handiwork("sandbox", *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
    assert handiwork("sandbox", "list", "--json").out == "[]\n"
