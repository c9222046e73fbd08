"""`handiwork tool …`: what agents may declare, and what they declare it with."""

import json

import pytest

from handiwork.tools.toolset import stock


def test_all_are_listed(handiwork) -> None:
    done = handiwork("tool", "list", "--json")
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert rows.keys() == {one.name for one in stock()}
    assert {name for name, row in rows.items() if row["kind"] == "stock"} == {
        *("bash", "read", "write", "edit", "glob", "grep")
    }
    assert rows["execute"]["description"].startswith("Run code in the sandbox")
    assert "execute" in handiwork("tool", "list").out


def test_what_an_agent_declares(handiwork) -> None:
    done = handiwork("tool", "show", "execute", "background", "cf_read", "execute")
    execute, background, read = json.loads(done.out)
    assert [one["name"] for one in (execute, background, read)] == [
        *("execute", "background", "cf_read")
    ]
    assert {one["type"] for one in (execute, background, read)} == {"custom"}
    assert read["input_schema"]["required"] == ["path"]
    assert background["description"] == stock().get("background").description
    for shown in ("background: (input: BackgroundInput)", "cf_read: (input: CfReadInput)"):
        assert shown in execute["description"]
    assert "async def background(*" in execute["description"]
    assert "run_file" not in execute["description"]


def test_execute_alone_shows_the_files_alone(handiwork) -> None:
    (execute,) = json.loads(handiwork("tool", "show", "execute").out)
    assert execute["description"] == stock().get("execute").description


@pytest.mark.parametrize("name", ["nothing", "bash"])
def test_what_is_none_is_told(handiwork, name) -> None:
    done = handiwork("tool", "show", name)
    assert (done.code, done.out) == (2, "")
    assert (
        f"there is no tool '{name}' that an agent declares; there are background, cf_edit"
        in done.err
    )
