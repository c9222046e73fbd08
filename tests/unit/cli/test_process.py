"""`handiwork process …`: a process from its start to its end; its output is ours."""

import json

from handiwork.model.sandbox import OUT_OF_MEMORY


def test_its_life(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    made = handiwork("process", "start", box, "--", "echo", "one", "--two")
    assert (made.code, made.err) == (0, "")
    process = made.out.strip()
    followed = handiwork("process", "logs", "--follow", box, process)
    assert (followed.code, followed.out) == (0, "one--two")
    assert followed.err == f"donehandiwork: {process} exited: exit code 0\n"
    assert handiwork("process", "logs", box, process, "--after", "3").out == "--two"
    (row,) = json.loads(handiwork("process", "list", box, "--json").out)
    assert (row["id"], row["state"], row["exit_code"]) == (process, "exited", 0)
    assert f"id  {process}\n" in handiwork("process", "show", box, process).out
    assert handiwork("process", "remove", box, process).code == 0
    assert handiwork("process", "list", box, "--json").out == "[]\n"


def test_a_kill_for_memory_is_told(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    process = handiwork("process", "start", box, "make").out.strip()
    followed = handiwork("process", "logs", "--follow", box, process)
    assert followed.err.endswith(f" exited: exit code 2 ({OUT_OF_MEMORY})\n")


def test_one_that_runs(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    process = handiwork("process", "start", box, "sleep").out.strip()
    shown = handiwork("process", "show", box, process)
    assert "listens on 127.0.0.1:80\n" in shown.out
    detail = json.loads(handiwork("process", "show", box, process, "--json").out)
    assert detail["process"]["state"] == "running"
    assert handiwork("process", "kill", box, process, "--signal", "2").code == 0
    assert api.served.sandboxes.live[box].signals == [2]
    assert "exited" in handiwork("process", "logs", "-f", box, process).err


def test_what_is_not_there(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    for arguments in (
        ("start", "sbx_none", "true"),
        ("list", "sbx_none"),
        ("show", box, "proc_none"),
        ("logs", box, "proc_none"),
        ("kill", box, "proc_none"),
        ("remove", box, "proc_none"),
    ):
        done = handiwork("process", *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
