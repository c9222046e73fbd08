"""The demo as a newcomer runs it; and with each of its claims sabotaged, when it must fail by name.

A sabotage is a few lines added to a copy of the source, which the demo and every process that it
starts then run from.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import handiwork

SOURCE = Path(handiwork.__file__).parent

SABOTAGES = {
    "masked": {
        "egress/mask.py": """
Mask.feed = lambda self, data: bytes(data)
Mask.apply = lambda self, data: bytes(data)
Mask.finish = lambda self, data=b"": bytes(data)
""",
    },
    "injected": {
        "egress/registry.py": """
_open = EgressRegistry.open
async def _open_then_lose_the_proxy(self, binding, grant):
    way = await _open(self, binding, grant)
    if binding.kind == "sandbox":
        self.detach()
    return way
EgressRegistry.open = _open_then_lose_the_proxy
""",
        "supervisor.py": "BACKOFF_SECONDS = (3600.0,)\n",
    },
    "hidden": {
        "cli/demo/play.py": """
_look = _look_inside
async def _plant_and_look(stage, hands, steps, narrator):
    session = await hands.sessions.get(stage.session_id)
    box = await hands.sandboxes.get(session.sandbox_id)
    await box.files.write("/home/notes.txt", stage.key.encode())
    return await _look(stage, hands, steps, narrator)
_look_inside = _plant_and_look
""",
    },
    "awake": {
        "sandboxes/namespace.py": """
import shutil
_sleep = NamespaceDriver.sleep
async def _sleep_and_lose_files(self, sandbox_id):
    await _sleep(self, sandbox_id)
    async with self.uppers(sandbox_id) as (upper, *_):
        shutil.rmtree("workspace", dir_fd=upper)
NamespaceDriver.sleep = _sleep_and_lose_files
""",
    },
    "denied": {
        "cli/demo/story.py": """
_policy = policy
def policy(port, trust_anchor):
    given = _policy(port, trust_anchor)
    given["rules"] = [rule for rule in given["rules"] if rule["id"] != DENY_RULE]
    return given
""",
    },
    "asleep": {
        "sessions/runner.py": """
async def _stay_awake(self):
    return None
_Run._free_sandbox = _stay_awake
""",
    },
}


def demo(directory: Path, source: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory)}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    return subprocess.run(
        [sys.executable, "-m", "handiwork", "demo"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.timeout(160)
def test_every_claim_holds_and_nothing_is_left(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "blocked by agent:demo/no-evil" in done.stdout
    assert list(tmp_path.glob("handiwork-demo-*")) == []


@pytest.mark.timeout(160)
@pytest.mark.parametrize(
    "claim",
    [
        claim if claim in ("denied", "hidden") else pytest.param(claim, marks=pytest.mark.slow)
        for claim in SABOTAGES
    ],
)
def test_a_sabotaged_claim_is_named(claim: str, tmp_path: Path) -> None:
    copy = tmp_path / "source" / "handiwork"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, lines in SABOTAGES[claim].items():
        with (copy / name).open("a") as file:
            file.write(lines)
    done = demo(tmp_path, copy.parent)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"the demo's claim '{claim}' does not hold" in done.stderr
