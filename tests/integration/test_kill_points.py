"""`kill -9` of a whole control plane between any two steps of a call: nothing twice, nothing lost.

The moments are found from outside: the database is read while it runs, and locked to keep the
control plane from its next step; a proxy before the brain holds posts back. A lock is taken when
nothing waits to be written, and the kill follows at once: a control plane that cannot write lets
its sessions go. Runs are counted by the command itself, in a file that outlives its processes.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, BrainProcess, call
from control_plane_process import ControlPlane
from handiwork.sessions.calls import CUT_SHORT, INTERRUPTED
from stalling_proxy import StallingProxy
from uppers import written

pytestmark = pytest.mark.timeout(180)

CONFIG = """
[local_brain]
enabled = false
[sessions]
lease_seconds = 4
[[environments]]
id = {id}
base_url = {url}
key_file = {key_file}
"""


def until(what: Callable[[], Any], seconds: float = 40.0) -> Any:
    limit = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.01)
    return found


class Rig:
    """One brain, one proxy before it, and a control plane that is killed and started again."""

    def __init__(self, directory: Path, brain: BrainProcess, proxy: StallingProxy) -> None:
        self.directory = directory
        self.proxy = proxy
        self.client = anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url)
        self.environment_id = brain.environment_id
        key_file = directory / "environment-key"
        key_file.write_text(brain.environment_key)
        key_file.chmod(0o600)
        self._config = CONFIG.format(
            id=json.dumps(brain.environment_id),
            url=json.dumps(proxy.url),
            key_file=json.dumps(str(key_file)),
        )
        self.plane = self.start()

    def start(self) -> ControlPlane:
        self.plane = control_plane_process.start(self.directory, config=self._config)
        return self.plane

    def begin(self, name: str, command: str) -> "Turn":
        """Make a session whose first turn warms it up and whose second runs the command."""
        counted = f"echo run >> count-{name}; {command}"
        turns = [
            {"steps": [call("bash", command="true")]},
            {"steps": [call("bash", command=counted)]},
            {"steps": [call("bash", command=f"cat count-{name} || true")]},
        ]
        agent = self.client.beta.agents.create(
            name=name, model="scripted", system=json.dumps({"turns": turns}), tools=[TOOLSET]
        )
        session = self.client.beta.sessions.create(
            agent=agent.id, environment_id=self.environment_id
        )
        turn = Turn(self, session.id, name)
        turn.say()
        turn.results(1)
        until(lambda: turn.ledger() == ["posted"])
        return turn

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the control plane from writing for as long as its patience lasts: 2 s."""
        path = self.plane.data / "handiwork.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("begin immediate")
            yield
            database.execute("rollback")


class Turn:
    """One session of the rig."""

    def __init__(self, rig: Rig, session_id: str, name: str) -> None:
        self._rig = rig
        self.id = session_id
        self.name = name

    def say(self, event: dict[str, Any] | None = None) -> None:
        message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
        self._rig.client.beta.sessions.events.send(self.id, events=[event or message])

    def events(self, kind: str) -> list[Any]:
        return [e for e in self._rig.client.beta.sessions.events.list(self.id) if e.type == kind]

    def results(self, count: int) -> list[str]:
        found = until(lambda: (r := self.events("user.tool_result")) and len(r) >= count and r)
        assert len(found) == count
        return [event.content[0].text for event in found]

    def ledger(self) -> list[str]:
        path = self._rig.plane.data / "handiwork.db"
        query = "select state from tool_calls where session_id = ? order by started_us"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return [state for (state,) in database.execute(query, [self.id])]

    def noted(self, kind: str) -> int:
        path = self._rig.plane.data / "handiwork.db"
        query = "select count(*) from session_events where session_id = ? and kind = ?"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return int(database.execute(query, [self.id, kind]).fetchone()[0])

    def session(self) -> dict[str, Any]:
        path = self._rig.plane.data / "handiwork.db"
        query = "select body from sessions where id = ?"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return json.loads(database.execute(query, [self.id]).fetchone()[0])

    def wrote(self, name: str) -> bool:
        """Say whether the command has written this file."""
        return bool(written(self._rig.plane.data, f"workspace/{name}-{self.name}"))

    def runs(self) -> int:
        (text,) = written(self._rig.plane.data, f"workspace/count-{self.name}")
        return text.count("run")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("kill-points")
    with BrainProcess.start(directory / "brain.db") as brain, StallingProxy(brain.port) as proxy:
        made = Rig(directory, brain, proxy)
        try:
            yield made
        finally:
            made.client.close()
            if made.plane.process.poll() is None:
                made.plane.stop()


@pytest.fixture(autouse=True)
def open_way(rig: Rig) -> Iterator[None]:
    yield
    rig.proxy.refuses = False
    rig.proxy.let_go()
    if rig.plane.process.poll() is not None:
        rig.start()


def test_seen_and_not_started(rig: Rig) -> None:
    turn = rig.begin("seen", "echo done")
    with rig.locked():
        turn.say()
        until(lambda: len(turn.events("agent.tool_use")) == 2)
        time.sleep(0.3)
        rig.plane.kill()
    assert turn.ledger() == ["posted"]
    rig.start()
    assert turn.results(2)[1] == "done"
    assert turn.runs() == 1


def test_started_and_running(rig: Rig) -> None:
    turn = rig.begin("running", "sleep 30")
    turn.say()
    until(lambda: turn.wrote("count"))
    rig.plane.kill()
    assert turn.ledger() == ["posted", "started"]
    rig.start()
    assert turn.results(2)[1] == CUT_SHORT
    assert turn.runs() == 1
    until(lambda: turn.ledger() == ["posted", "posted"])


def test_finished_and_not_stored(rig: Rig) -> None:
    turn = rig.begin("finished", "sleep 1; touch done-finished")
    turn.say()
    # Once its start is noted, nothing else is written before the call ends.
    until(lambda: turn.noted("tool.started") == 2)
    with rig.locked():
        rig.proxy.hold()
        until(lambda: turn.wrote("done"))
        rig.plane.kill()
    assert turn.ledger() == ["posted", "started"]
    assert len(turn.events("user.tool_result")) == 1
    rig.proxy.let_go()
    rig.start()
    assert turn.results(2)[1] == CUT_SHORT
    assert turn.runs() == 1


def test_posted_and_not_stored(rig: Rig) -> None:
    turn = rig.begin("unstored", "sleep 1; echo posted")
    turn.say()
    until(lambda: turn.noted("tool.started") == 2)
    with rig.locked():
        assert turn.results(2)[1] == "posted"
        rig.plane.kill()
    assert turn.ledger() == ["posted", "started"]
    rig.start()
    turn.say()
    assert turn.results(3)[1:] == ["posted", "run"]
    assert turn.runs() == 1
    until(lambda: turn.ledger() == ["posted", "refused", "posted"])


def test_stored_and_not_posted(rig: Rig) -> None:
    turn = rig.begin("stored", "echo $RANDOM$RANDOM | tee answer-stored")
    rig.proxy.hold()
    turn.say()
    until(lambda: turn.ledger() == ["posted", "stored"])
    rig.plane.kill()
    (answer,) = written(rig.plane.data, "workspace/answer-stored")
    assert len(turn.events("user.tool_result")) == 1
    rig.proxy.let_go()
    rig.start()
    assert turn.results(2)[1] == answer.strip()
    assert turn.runs() == 1


def test_posted_and_not_settled(rig: Rig) -> None:
    turn = rig.begin("posted", "echo once")
    rig.proxy.hold()
    turn.say()
    until(lambda: turn.ledger() == ["posted", "stored"] and turn.noted("tool.finished") == 2)
    with rig.locked():
        rig.proxy.let_go()
        assert turn.results(2)[1] == "once"
        rig.plane.kill()
    assert turn.ledger() == ["posted", "stored"]
    rig.start()
    # Something must bring the session back before its trace can end.
    turn.say()
    assert turn.results(3)[1:] == ["once", "run"]
    assert turn.runs() == 1
    until(lambda: turn.ledger() == ["posted"] * 3)


def test_refused_and_not_settled(rig: Rig) -> None:
    turn = rig.begin("refused", "echo never")
    rig.proxy.refuses = True
    rig.proxy.hold()
    turn.say()
    until(lambda: turn.ledger() == ["posted", "stored"] and turn.noted("tool.finished") == 2)
    before = rig.proxy.refused
    with rig.locked():
        rig.proxy.let_go()
        until(lambda: rig.proxy.refused > before)
        rig.plane.kill()
    assert turn.ledger() == ["posted", "stored"]
    rig.start()
    until(lambda: turn.ledger() == ["posted", "refused"])
    (refused,) = until(lambda: turn.session()["refused_results"])
    assert (refused["tool"], "no such call" in refused["reason"]) == ("bash", True)
    assert turn.runs() == 1
    turn.say({"type": "user.interrupt"})


def test_interrupted_and_not_settled(rig: Rig) -> None:
    turn = rig.begin("interrupted", "sleep 30")
    turn.say()
    until(lambda: turn.wrote("count") and turn.noted("tool.started") == 2)
    with rig.locked():
        turn.say({"type": "user.interrupt"})
        until(lambda: any(e.processed_at for e in turn.events("user.interrupt")))
        rig.plane.kill()
    assert turn.ledger() == ["posted", "started"]
    rig.start()
    turn.say()
    assert turn.results(2)[1] == "run"
    assert turn.runs() == 1
    until(lambda: turn.ledger() == ["posted", "refused", "posted"])


def test_settled_by_an_interrupt(rig: Rig) -> None:
    turn = rig.begin("settled", "sleep 30")
    turn.say()
    until(lambda: turn.wrote("count"))
    turn.say({"type": "user.interrupt"})
    until(lambda: turn.ledger() == ["posted", "refused"])
    rig.plane.kill()
    rig.start()
    turn.say()
    assert turn.results(2)[1] == "run"
    assert turn.runs() == 1
    assert INTERRUPTED not in turn.results(2)
