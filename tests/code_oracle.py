"""`@cloudflare/codemode`'s own declarations of tools, and TypeScript's parser: both run in Node, by `oracle/types.mjs`."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from handiwork.tools.code_interface import CodeTool

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / ".peers/oracle"
PROGRAM = ROOT / "tests/oracle/types.mjs"


def require_oracle() -> None:
    """Skip by name where the package is not there; in `./run test --all`, which installs it, fail."""
    if shutil.which("node") and (PACKAGES / "node_modules/typescript").is_dir():
        return
    told = (
        "@cloudflare/codemode and typescript are not in .peers/oracle: ./run test --all installs it"
    )
    if os.environ.get("CODE_ORACLE") == "required":
        pytest.fail(told)
    pytest.skip(told)


def declared(catalogues: Sequence[Sequence[CodeTool]]) -> list[str]:
    """Return what the package declares of each of these catalogues."""
    asked = [{"tools": {one.name: _described(one) for one in tools}} for tools in catalogues]
    return [one["types"] for one in _answers(asked)]


def problems(texts: Sequence[str]) -> list[list[str]]:
    """Return what keeps each of these from being TypeScript, by its own parser."""
    return [one["problems"] for one in _answers([{"text": text} for text in texts])]


def _answers(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", PROGRAM],
        input="".join(f"{json.dumps(one)}\n" for one in asked),
        env={"PATH": os.environ["PATH"], "ORACLE_PACKAGES": str(PACKAGES)},
        capture_output=True,
        check=True,
        timeout=60,
        encoding="utf-8",
    )
    answers = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert len(answers) == len(asked)
    return answers


def _described(tool: CodeTool) -> dict[str, Any]:
    told: dict[str, Any] = {"description": tool.description, "inputSchema": tool.input_schema}
    if tool.output_schema is not None:
        told["outputSchema"] = tool.output_schema
    return told
