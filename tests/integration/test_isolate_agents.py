"""Agents whose sandbox is an isolate: one made for another's isolates, and one with the stock toolset."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from brain_process import TOOLSET, call, script
from control_plane_process import ControlPlane
from handiwork import Handiwork
from handiwork.model.run import Run, RunState
from handiwork.model.wire import RunBody
from handiwork.tools.toolset import stock

NAMES = (
    "execute",
    "run_file",
    "cf_read",
    "cf_write",
    "cf_edit",
    "cf_grep",
    "list",
    "find",
    "delete",
)
ORDERS = "id,amount,state\n1,10.5,paid\n2,4.5,open\n3,30,paid\n"
REPORT = """
import { readOrders } from "./lib/orders.mjs";
const orders = await readOrders("/data/orders.csv");
const paid = orders.filter((one) => one.state === "paid");
const report = { paid: paid.length, total: paid.reduce((sum, one) => sum + Number(one.amount), 0) };
await codemode.write({ path: "/workspace/outputs/report.json", content: JSON.stringify(report) });
export default report;
"""
LIBRARY = """
export async function readOrders(path) {
  const [head, ...lines] = (await workspace.read(path)).trim().split("\\n").map((line) => line.split(","));
  return lines.map((line) => Object.fromEntries(head.map((name, at) => [nam, line[at]])));
}
"""
"""With a mistake, which the agent finds and repairs."""


@pytest.fixture
async def hw(shared_plane: ControlPlane) -> AsyncIterator[Handiwork]:
    async with Handiwork(socket=shared_plane.socket) as hw:
        yield hw


@pytest.fixture
async def brain(shared_plane: ControlPlane) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = shared_plane.addresses["local_brain"]
    async with anthropic.AsyncAnthropic(api_key=shared_plane.brain_key, base_url=url) as client:
        yield client


def declared(*names: str) -> list[dict[str, Any]]:
    """Return tools as an agent declares them: names, descriptions and inputs of ours."""
    registry = stock()
    found = [(name, registry.get(name)) for name in names]
    return [
        {
            "type": "custom",
            "name": name,
            "description": one.description,
            "input_schema": one.schema,
        }
        for name, one in found
        if one is not None
    ]


async def ended(hw: Handiwork, brain: anthropic.AsyncAnthropic, tools: Any, system: str) -> Run:
    agent = await brain.beta.agents.create(
        name="isolated", model="scripted", system=system, tools=tools
    )
    run = await hw.runs.start(RunBody(task="go", agent=agent.id, tier="isolate"))
    assert run.state is RunState.ENDED, run.reason
    return run


async def test_an_agent_made_for_other_isolates_works_unchanged(
    hw: Handiwork, brain: anthropic.AsyncAnthropic
) -> None:
    assert len(declared(*NAMES)) == len(NAMES)
    system = script(
        call("cf_write", path="/data/orders.csv", content=ORDERS),
        call("cf_write", path="/workspace/lib/orders.mjs", content=LIBRARY),
        call("cf_write", path="/workspace/report.mjs", content=REPORT),
        call("run_file", path="report.mjs", save="first"),
        {
            "if": {"of": "first", "contains": "ReferenceError", "is_error": True},
            "then": [
                call("cf_grep", pattern=r"\[nam\b", save="where"),
                call(
                    "cf_edit",
                    path="/workspace/lib/orders.mjs",
                    old_string="[nam,",
                    new_string="[name,",
                ),
            ],
        },
        call("run_file", path="report.mjs", save="second"),
        call("find", pattern="**/*.json", save="found"),
        call("list", path="/workspace", save="listed"),
        call(
            "execute",
            save="checked",
            code="async () => {\n const report = JSON.parse(await codemode.read({ path: 'outputs/report.json' }));\n"
            " const [python] = await Promise.all([codemode.find({ pattern: '/data/*' })]);\n"
            " return { ...report, python };\n}",
        ),
        call("delete", path="/data", recursive=True, save="deleted"),
        {"say": "${second}|${found}|${listed}|${checked}|${deleted}|${where}"},
    )
    run = await ended(hw, brain, declared(*NAMES), system)
    second, found, listed, checked, deleted, where = run.message.split("|")
    assert json.loads(second) == {"result": {"paid": 2, "total": 40.5}}
    assert found == "/workspace/outputs/report.json"
    assert listed.splitlines() == [
        "d /workspace/lib",
        "d /workspace/outputs",
        "- /workspace/report.mjs",
    ]
    assert json.loads(checked)["result"] == {
        "paid": 2,
        "total": 40.5,
        "python": ["/data/orders.csv"],
    }
    assert deleted == "deleted /data"
    assert where.startswith("/workspace/lib/orders.mjs:4:")
    assert [(file.path, file.size) for file in run.files] == [("report.json", 23)]


async def test_an_agent_with_the_stock_toolset_works_on_files(
    hw: Handiwork, brain: anthropic.AsyncAnthropic
) -> None:
    code = "import json\nwith_total = {'lines': 3}\nawait workspace.write('/workspace/outputs/n.json', json.dumps(with_total))"
    system = script(
        call("write", file_path="notes/a.md", content="# one\ntodo: first\n"),
        call("write", file_path="notes/deep/b.md", content="# two\ntodo: second\n"),
        call("glob", pattern="**/*.md", save="globbed"),
        call("grep", pattern="^todo: (first|second)$", save="grepped"),
        call("edit", file_path="notes/a.md", old_string="todo: first", new_string="done: $1"),
        call("read", file_path="notes/a.md", save="read"),
        call("execute", code=code, language="python", save="ran"),
        call("bash", command="cd notes; grep -c done a.md; ls", save="shell"),
        {"say": "${globbed}|${grepped}|${read}|${ran}|${shell}"},
    )
    run = await ended(hw, brain, [TOOLSET, *declared("execute")], system)
    globbed, grepped, read, ran, shell = run.message.split("|")
    assert set(globbed.splitlines()) == {"/workspace/notes/a.md", "/workspace/notes/deep/b.md"}
    assert grepped.splitlines() == [
        "/workspace/notes/a.md:2:todo: first",
        "/workspace/notes/deep/b.md:2:todo: second",
    ]
    assert read == "# one\ndone: $1\n"
    assert json.loads(ran) == {"result": 12}
    assert shell.splitlines() == ["1", "a.md", "deep"]
    assert [file.path for file in run.files] == ["n.json"]
    session = await hw.sessions.get(run.session_id)
    assert session.id == run.session_id
