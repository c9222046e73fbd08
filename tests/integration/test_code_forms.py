"""Code in every form that models write it in, through `execute`, in real cells: each gives what it means."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from code_forms import ANSWER, FILES, FORMS, REFUSED
from handiwork.config import ToolSettings
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.session import BrainSession
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.tools import code_text
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from handiwork.tools.toolset import stock
from tool_world import ToolWorld

SESSION = BrainSession(
    id="sesn_1", agent_id="agent_1", agent_name="a", custom_tools=("execute", "echo")
)


@tool("echo")
async def echo(context: ToolContext, text: str) -> str:
    """Say it again."""
    return text


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ToolWorld]:
    driver = IsolateDriver(tmp_path, user_id=1 << 29 if os.geteuid() == 0 else 0)
    registry = stock()
    registry.add(echo)
    box = await driver.create(SandboxSpec(id="sbx_forms0000"))
    for path, text in FILES.items():
        await box.files.write(path, text.encode())
    yield ToolWorld(box, ToolSettings(default_timeout_seconds=20), registry, session=SESSION)
    await driver.destroy(box.id)


async def wrong(world: ToolWorld, language: str) -> dict[str, Any]:
    """Return the forms that gave something else, with what they gave."""
    found = {}
    for name, (code, value) in FORMS[language].items():
        told, failed = await world.custom("execute", code=code, language=language)
        given = {"error": told} if failed else json.loads(told)
        if failed or given["result"] != value or type(given["result"]) is not type(value):
            found[name] = given
    return found


@pytest.mark.parametrize("language", FORMS)
async def test_every_form_gives_what_it_means(world: ToolWorld, language: str) -> None:
    assert sum(map(len, FORMS.values())) >= 200
    assert await wrong(world, language) == {}


@pytest.mark.parametrize("language", REFUSED)
async def test_what_is_cut_off_or_twice_does_not_run(world: ToolWorld, language: str) -> None:
    for code, why in REFUSED[language].items():
        told, failed = await world.custom("execute", code=code, language=language)
        assert failed
        assert why in told
        assert '"logs"' not in told


async def test_a_form_that_is_not_known_is_seen(
    world: ToolWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.tools.code.unfenced", lambda text: text)
    found = await wrong(world, "python")
    fences = {name for name in FORMS["python"] if "fence" in name} - {"a text with a fence"}
    assert fences
    assert fences <= found.keys()
    assert not {"a script", "a function", "a return"} & found.keys()


def test_each_form_is_there_once() -> None:
    for forms in FORMS.values():
        codes = [code for code, _ in forms.values()]
        assert len(set(codes)) == len(codes)
        assert [value for _, value in forms.values()].count(ANSWER) > 60
    assert code_text.unfenced("```\n42\n```") == "42"
