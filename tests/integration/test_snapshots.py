"""Snapshots in a whole control plane: killed, its disks lost, its packs damaged, and started again.

In the first tier as root; the same in gVisor, and without root, where no sandbox has a disk or ids of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic

from control_plane_process import BRAINLESS, ControlPlane
from handiwork.brains.conversation import TOOLSET
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConflictError, HandiworkError, SandboxUnavailableError
from handiwork.sandboxes.namespace import DEFAULT_AGENT
from microvm_world import needs_kernel
from snapshot_plane import (
    GVISOR,
    MICROVM,
    ROOTLESS,
    SECONDS,
    USUAL,
    How,
    asked,
    damage,
    lose,
    running,
    started,
    text,
    until,
)

CONFIG = "[sessions]\nidle_seconds = 1.0\nlease_seconds = 4\n[snapshots]\nsweep_seconds = 0.5\n"
DRIVEN = CONFIG + BRAINLESS
QUIET = CONFIG + "on_idle = false\n" + BRAINLESS
TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(600)
IN_GVISOR = pytest.param(GVISOR, id="gvisor", marks=pytest.mark.root)
WITHOUT_ROOT = pytest.param(ROOTLESS, id="rootless", marks=pytest.mark.root)


def slow(how: Any) -> Any:
    return pytest.param(*how.values, id=how.id, marks=(*how.marks, pytest.mark.slow))


with_disks = pytest.mark.parametrize("how", [pytest.param(USUAL, id="usual"), slow(IN_GVISOR)])
everywhere = pytest.mark.parametrize(
    "how", [pytest.param(USUAL, id="usual"), slow(IN_GVISOR), slow(WITHOUT_ROOT)]
)
IN_MACHINES = pytest.param(MICROVM, id="microvm", marks=needs_kernel)
elsewhere = pytest.mark.parametrize("how", [slow(IN_GVISOR), slow(WITHOUT_ROOT), slow(IN_MACHINES)])


@elsewhere
def test_elsewhere_as_with_us(tmp_path: Path, how: How) -> None:
    """Of each tier and user the quick part: taken twice, killed, and woken from the second."""

    async def first(client: Handiwork) -> str:
        await how.ready(client, tmp_path)
        box = await client.sandboxes.create()
        await box.exec("head -c 3M /dev/urandom > r; echo one > a; ln a b; rm -rf /var/backups")
        one = await box.snapshot()
        await box.exec("echo two >> a; ln -s a c; chown 7 a")
        two = await box.snapshot()
        assert (one.number, two.number) == (1, 2)
        assert one.new_bytes > 3 << 20 > 50 * two.new_bytes
        await box.exec("echo lost > later")
        return box.id

    async def second(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        assert "it wakes from snapshot 2" in box.record.reason
        told = await text(box, "cat a; stat -c '%h %u' a; readlink c; stat -c %s r; ls; ls /var")
        entries = f"one\ntwo\n2 {how.owner('7')}\na\n{3 << 20}\na\nb\nc\nr\n"
        assert told.startswith(entries)
        assert "backups" not in told

    plane = started(tmp_path, QUIET, how)
    try:
        sandbox_id = asked(plane, first)
    finally:
        plane.kill()
    lose(plane, sandbox_id)
    with running(tmp_path, QUIET, how) as again:
        asked(again, second)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.root
def test_of_a_user_who_never_was_root(open_dir: Path) -> None:
    """The driver alone: whoever is no root may not read where this Python may lie, to start more of it."""
    data = open_dir / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 65534, 65534)
    agent = shutil.copy(DEFAULT_AGENT, open_dir)
    script = [sys.executable, str(TESTS / "rootless_snapshots.py"), str(data), str(agent)]
    first = subprocess.run([*script, "take"], capture_output=True, text=True, timeout=120, cwd="/")
    assert first.returncode == -signal.SIGKILL, first.stderr
    told = json.loads(first.stdout)
    assert told["uid"] == 65534
    assert told["added"][0] > 3 << 20 > 50 * told["added"][1]
    again = subprocess.run([*script, "again"], capture_output=True, text=True, timeout=120, cwd="/")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {
        "left": ["sbx_rootless"],
        "woken": "one\ntwo\nthree\na\n2\n0\n0\nhidden\n",
        "rolled back": "one\na\n2\n0\n0\nhidden\n",
        "can fork": False,
        "forked": "one\ntwo\na\n2\n0\n0\nhidden\n",
    }


@elsewhere
def test_killed_it_has_what_it_wrote_since_its_snapshot(tmp_path: Path, how: How) -> None:
    async def first(client: Handiwork) -> str:
        await how.ready(client, tmp_path)
        box = await client.sandboxes.create()
        await box.exec("echo one > a")
        await box.snapshot()
        await box.exec("echo two > a; sync; sleep 1000 &")
        return box.id

    async def second(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        assert await text(box, "cat a; pidof sleep") == "two"
        taken = await box.snapshot()
        assert taken.number == 2
        await box.snapshots.rollback(1)
        assert await text(box, "cat a") == "one"
        (fork,) = await box.fork(number=2)
        assert await text(fork, "cat a") == "two"

    plane = started(tmp_path, QUIET, how)
    try:
        sandbox_id = asked(plane, first)
    finally:
        plane.kill()
    with running(tmp_path, QUIET, how) as again:
        asked(again, second)


@everywhere
def test_after_kill_and_a_lost_disk_it_wakes_from_its_snapshot(tmp_path: Path, how: How) -> None:
    async def first(client: Handiwork) -> str:
        box = await client.sandboxes.create()
        await box.exec("echo kept > a; ln a b; ln -s a c; rm -rf /var/backups; chown 7:8 a")
        taken = await box.snapshot()
        assert (taken.number, taken.reason) == (1, "request")
        await box.exec("echo lost > later")
        return box.id

    async def second(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        assert "it wakes from snapshot 1" in box.record.reason
        told = await text(box, "cat a; stat -c '%h %u:%g' a; readlink c; ls")
        owners = f"{how.owner('7')}:{how.owner('8')}"
        assert told.split("\n") == ["kept", f"2 {owners}", "a", "a", "b", "c"]
        await box.snapshots.pin(1, "good")
        with pytest.raises(ConflictError, match="pinned"):
            await box.snapshots.remove(1)

    plane = started(tmp_path, QUIET, how)
    try:
        sandbox_id = asked(plane, first)
    finally:
        plane.kill()
    lose(plane, sandbox_id)
    with running(tmp_path, QUIET, how) as again:
        asked(again, second)


@with_disks
def test_the_disk_alone_lost_is_lost(tmp_path: Path, how: How) -> None:
    """Its directory is there still: an empty upper directory is never taken for the state."""

    async def first(client: Handiwork) -> str:
        box = await client.sandboxes.create()
        await box.exec("echo kept > a")
        await box.snapshot()
        return box.id

    async def second(client: Handiwork) -> None:
        assert await text(await client.sandboxes.get(sandbox_id), "cat a") == "kept"

    plane = started(tmp_path, QUIET, how)
    try:
        sandbox_id = asked(plane, first)
    finally:
        plane.kill()
    (disk,) = [*(plane.data / "sandboxes").glob(f"**/{sandbox_id}/disk.img")] or [None]
    if disk is None:
        pytest.skip("this host has no disks of their own for sandboxes (`handiwork doctor`)")
    disk.unlink()
    with running(tmp_path, QUIET, how) as again:
        asked(again, second)


@everywhere
def test_a_sandbox_that_sleeps_is_taken_by_itself(tmp_path: Path, how: How) -> None:
    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.create()
        await box.exec("echo one > a")
        await box.sleep()
        (taken,) = await until(box.snapshots.list)
        assert (taken.reason, taken.number) == ("idle", 1)

    with running(tmp_path, DRIVEN, how) as plane:
        asked(plane, verb)


@everywhere
def test_a_damaged_newest_is_told_and_an_older_one_taken_and_none_at_all_fails_closed(
    tmp_path: Path, how: How
) -> None:
    async def first(client: Handiwork) -> str:
        box = await client.sandboxes.create()
        for number in (1, 2):
            await box.exec(f"head -c 300000 /dev/urandom > r{number}; echo {number} > a")
            packs.append(set(plane.data.glob("snapshots/default/packs/*/*")))
            await box.snapshot()
        packs.append(set(plane.data.glob("snapshots/default/packs/*/*")))
        return box.id

    async def second(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        assert await text(box, "cat a; ls") == "1\na\nr1"

    async def third(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        for _ in range(2):
            with pytest.raises(SandboxUnavailableError, match=r"chunk \w+ of pack \w+ is damaged"):
                await box.exec("true")
        assert (await box.refresh()).state.value == "sleeping"

    packs: list[set[Path]] = []
    plane = started(tmp_path, QUIET, how)
    try:
        sandbox_id = asked(plane, first)
    finally:
        plane.kill()
    (newer,) = packs[2] - packs[1]
    damage(newer)
    lose(plane, sandbox_id)
    plane = started(tmp_path, QUIET, how)
    try:
        asked(plane, second)
    finally:
        plane.kill()
    for pack in packs[2]:
        damage(pack)
    lose(plane, sandbox_id)
    with running(tmp_path, QUIET, how) as again:
        asked(again, third)


@everywhere
def test_rollback_and_diff(tmp_path: Path, how: How) -> None:
    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.create()
        await box.exec("echo one > a; echo same > b")
        await box.snapshot()
        await box.exec("echo two > a; rm b; echo new > c; sleep 1000 &")
        await box.snapshot()
        found = await box.snapshots.diff(1, 2, path="/workspace")
        kinds = {one.path: one.change for one in found.changes}
        assert kinds == {
            "/workspace": "changed",
            "/workspace/a": "changed",
            "/workspace/b": "removed",
            "/workspace/c": "added",
        }
        one = await box.snapshots.diff(1, 2, path="/workspace", limit=1)
        assert (len(one.changes), one.truncated) == (1, True)

        record = await box.snapshots.rollback(1)
        assert record.state.value == "running"
        assert await text(box, "cat a b; ls; pgrep sleep") == "one\nsame\na\nb"
        assert [s.reason for s in await box.snapshots.list()][:1] == ["before rollback"]
        await box.snapshots.rollback(3)
        assert await text(box, "cat a; ls") == "two\na\nc"

        await box.sleep()
        await box.snapshots.rollback(1)
        assert (await box.refresh()).state.value == "sleeping"
        assert await text(box, "cat a") == "one"
        with pytest.raises(HandiworkError, match="no snapshot 99"):
            await box.snapshots.rollback(99)
        assert await text(box, "cat a") == "one"

    with running(tmp_path, QUIET, how) as plane:
        asked(plane, verb)


@everywhere
def test_forks_are_sandboxes_of_their_own(tmp_path: Path, how: How) -> None:
    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.create(env={"MINE": "1"})
        await box.exec("echo one > a; chown 7 a")
        forks = await box.fork(2)
        assert len({box.id, *(one.id for one in forks)}) == 3
        for number, fork in enumerate(forks):
            assert (
                await text(fork, "stat -c %u a; cat a; echo $MINE") == f"{how.owner('7')}\none\n1"
            )
            await fork.exec(f"echo {number} > a")
            assert fork.record.origin == (box.id if how.forks else f"{box.id}/1")
        assert await text(box, "cat a") == "one"
        await box.sleep()
        (asleep,) = await box.fork(wake=False)
        assert asleep.record.state.value == "sleeping"
        await box.close()
        assert await text(asleep, "cat a") == "one"

    with running(tmp_path, QUIET, how) as plane:
        asked(plane, verb)


@everywhere
def test_a_fork_is_kept_and_comes_back_as_any_other(tmp_path: Path, how: How) -> None:
    async def first(client: Handiwork) -> tuple[str, str]:
        box = await client.sandboxes.create()
        await box.exec("mkdir d; echo one > d/a; echo gone > d/b; chown 7 d/a; rm -rf /var/backups")
        await box.sleep()
        (fork,) = await box.fork()
        await box.exec("echo box > d/c")
        await fork.exec("rm d/b; echo two > d/c")
        taken = await fork.snapshot()
        await fork.exec("echo three > d/c; rm d/a")
        await fork.snapshots.rollback(taken.number)
        assert await text(fork, told) == f"one\ntwo\n{how.owner('7')}\na\nc"
        await fork.snapshot()
        return box.id, fork.id

    async def second(client: Handiwork) -> None:
        owner = how.owner("7")
        assert await text(await client.sandboxes.get(ids[1]), told) == f"one\ntwo\n{owner}\na\nc"
        assert await text(await client.sandboxes.get(ids[0]), told) == f"one\nbox\n{owner}\na\nb\nc"

    told = "cat d/a d/c; stat -c %u d/a; ls d; ls -d /var/backups 2>/dev/null"
    plane = started(tmp_path, QUIET, how)
    try:
        ids = asked(plane, first)
    finally:
        plane.kill()
    lose(plane, ids[1])
    with running(tmp_path, QUIET, how) as again:
        asked(again, second)


def sdk(plane: ControlPlane) -> Anthropic:
    return Anthropic(api_key=plane.brain_key, base_url=plane.addresses["local_brain"])


@everywhere
def test_the_brain_is_told_of_a_rollback_with_its_next_result(tmp_path: Path, how: How) -> None:
    def step(command: str) -> dict[str, Any]:
        return {"steps": [{"call": {"tool": "bash", "input": {"command": command}}}]}

    turns = [step("echo one > a"), step("cat a"), step("cat a")]

    def results() -> list[str]:
        with sdk(plane) as client:
            events = list(client.beta.sessions.events.list(session.id))
        texts = [
            [block.text for block in event.content]
            for event in events
            if event.type == "user.tool_result"
        ]
        return ["\n".join(one) for one in texts]

    def say() -> None:
        before = len(results())
        message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
        with sdk(plane) as client:
            client.beta.sessions.events.send(session.id, events=[message])
        limit = time.monotonic() + SECONDS
        while len(results()) <= before:
            assert time.monotonic() < limit
            time.sleep(0.2)

    async def roll(client: Handiwork) -> None:
        (box,) = await client.sandboxes.list()
        taken = await until(box.snapshots.list)
        await box.exec("echo two > a")
        await box.snapshots.rollback(taken[0].number)

    with running(tmp_path, CONFIG, how) as plane:
        with sdk(plane) as client:
            agent = client.beta.agents.create(
                name="told",
                model="scripted",
                system=json.dumps({"turns": turns}),
                tools=[{"type": TOOLSET}],
            )
            session = client.beta.sessions.create(
                agent=agent.id, environment_id=plane.addresses["environment_id"]
            )
        say()
        asked(plane, roll)
        say()
        say()
        _, second, third = results()
    assert "an operator put the files of this sandbox back to snapshot" in second
    assert second.endswith("one")
    assert third == "one"
