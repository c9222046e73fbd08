"""The local brain's process: its bootstrap, its end, what it never writes down."""

import json
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from anthropic import Anthropic

from brain_process import BrainProcess, script
from handiwork.brains.local.__main__ import LOST_WRITE, REFUSED

BOOTSTRAP = {"database": "x.db", "listen_fd": 0, "api_key": "k" * 20, "environments": []}


@pytest.fixture
def brain(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


@pytest.mark.parametrize("end", ["terminate", "close_stdin"])
def test_it_ends_cleanly_with_a_stream_open(brain, end):
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(name="a", model="scripted", system=script({"say": "x"}))
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        with client.beta.sessions.events.stream(session.id) as stream:
            assert getattr(brain, end)() == 0
            assert list(stream) == []


def test_a_kept_brain_is_started_again_with_other_keys(brain):
    brain.terminate()
    old = brain.api_key
    brain.api_key = "sk-ant-api03-another-key-of-the-test"
    brain.restart()
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        assert client.beta.environments.retrieve(brain.environment_id).name == "test"
    with Anthropic(api_key=old, base_url=brain.base_url) as client, pytest.raises(Exception) as no:
        client.beta.agents.list()
    assert no.value.status_code == 401


def test_no_key_is_in_its_files_arguments_or_environment(brain):
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        client.beta.agents.list()
    keys = [brain.api_key.encode(), brain.environment_key.encode()]
    proc = f"/proc/{brain.pid}"
    places = [Path(f"{proc}/{name}").read_bytes() for name in ("cmdline", "environ")]
    places += [path.read_bytes() for path in brain.database.parent.iterdir()]
    assert any(b"environment" in place for place in places)
    assert not [key for key in keys for place in places if key in place]


@pytest.mark.parametrize(
    ("bootstrap", "said"),
    [
        ("", "the bootstrap is missing"),
        ("not json\n", "not valid JSON"),
        (json.dumps({**BOOTSTRAP, "more": 1}) + "\n", "`more`"),
        (json.dumps({**BOOTSTRAP, "api_key": "short"}) + "\n", "api_key"),
        (json.dumps(BOOTSTRAP) + "\n", "listen_fd 0 is not a socket"),
        (json.dumps({**BOOTSTRAP, "listen_fd": 99}) + "\n", "listen_fd 99 is not a socket"),
    ],
)
def test_a_wrong_bootstrap_is_one_line(bootstrap, said):
    done = start(bootstrap)
    assert done.returncode == REFUSED
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        told = {**BOOTSTRAP, "database": str(tmp_path / "no" / "x.db")}
        told["listen_fd"] = listening.fileno()
        done = start(json.dumps(told) + "\n", pass_fds=[listening.fileno()])
    assert done.returncode == REFUSED
    assert "cannot be opened for writing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_lost_write_ends_the_process(brain):
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url, max_retries=0) as client:
        agent = client.beta.agents.create(name="a", model="scripted", system=script({"say": "x"}))
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        break_events(brain)
        with pytest.raises(Exception, match=r"5\d\d|onnection"):
            client.beta.sessions.events.send(
                session.id,
                events=[{"type": "user.message", "content": [{"type": "text", "text": "x"}]}],
            )
    assert brain.wait() == LOST_WRITE


def break_events(brain) -> None:
    with sqlite3.connect(brain.database) as plain:
        plain.execute("ALTER TABLE events RENAME TO elsewhere")
    plain.close()


def start(bootstrap: str, pass_fds=()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handiwork.brains.local"],
        input=bootstrap,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        pass_fds=pass_fds,
    )
