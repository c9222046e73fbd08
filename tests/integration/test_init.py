"""`handiwork init`, then `up`: an environment served and a webhook believed, nothing else written."""

import base64
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import anthropic
import httpx2
import pytest
from standardwebhooks import Webhook

from brain_process import TOOLSET, BrainProcess, call, script
from command_line import handiwork
from control_plane_process import running
from uppers import kept_bytes


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


def init(
    brain: BrainProcess, cwd: Path, *more: str, key: str | None = None
) -> CompletedProcess[str]:
    given = brain.environment_key if key is None else key
    where = ("--environment", brain.environment_id, "--base-url", brain.base_url)
    return handiwork("init", *where, *more, cwd=cwd, given=f"{given}\n")


def test_an_environment_from_nothing_to_its_first_session(
    brain: BrainProcess, tmp_path: Path
) -> None:
    webhook_key = secrets.token_bytes(32)
    (tmp_path / "hook").write_text("whsec_" + base64.urlsafe_b64encode(webhook_key).decode())
    (tmp_path / "hook").chmod(0o600)
    done = init(brain, tmp_path, "--webhook-key-file", "hook")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the key may serve it" in done.stdout
    assert "its queue: 0 waiting" in done.stdout
    written = (tmp_path / "handiwork.toml").read_text()
    for kept in [tmp_path / "handiwork.toml", *(tmp_path / "data").rglob("*")]:
        if kept.is_file():
            assert brain.environment_key.encode() not in kept_bytes(kept), kept
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    with running(tmp_path, config=written) as plane:
        assert served(brain) == "hello from it"
        again = init(brain, tmp_path, "--output", "other.toml")
        assert (again.returncode, "a control plane runs on" in again.stderr) == (2, True)
        body = '{"type":"event","data":{"type":"session.created","id":"sesn_1"}}'
        now = datetime.now(UTC)
        headers = {
            "webhook-id": "event_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(webhook_key).sign("event_1", now, body),
        }
        url = plane.addresses["api"] + "/webhooks"
        assert httpx2.post(url, content=body, headers=headers).status_code == 200
        headers["webhook-id"] = "event_2"
        assert httpx2.post(url, content=body, headers=headers).status_code == 401


def served(brain: BrainProcess) -> str:
    """What the sandbox of a new session answers."""
    with anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(
            name="a",
            model="scripted",
            system=script(
                call("bash", save="out", command="echo hello from it"), {"say": "${out}"}
            ),
            tools=[TOOLSET],
        )
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        with client.beta.sessions.events.stream(session.id) as stream:
            client.beta.sessions.events.send(
                session.id,
                events=[{"type": "user.message", "content": [{"type": "text", "text": "go"}]}],
            )
            for event in stream:
                if event.type == "agent.message":
                    return event.content[0].text.strip()
    return "nothing"


def test_keys_that_are_refused_leave_nothing(brain: BrainProcess, tmp_path: Path) -> None:
    for key, told in [
        ("sk-ant-oat01-wrong", "401"),
        (brain.api_key, "cannot"),
        ("", "is empty"),
        ("two words", "printable"),
    ]:
        done = init(brain, tmp_path, key=key)
        assert done.returncode in (1, 2), key
        assert (done.stderr.count("\n"), told in done.stderr) == (1, True), done.stderr
        assert not key or key not in done.stderr + done.stdout
        assert not (tmp_path / "handiwork.toml").exists()


def test_a_queue_that_holds_work_keeps_it(brain: BrainProcess, tmp_path: Path) -> None:
    with anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(name="a", model="scripted", system=script({"say": "x"}))
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        client.beta.sessions.events.send(
            session.id,
            events=[{"type": "user.message", "content": [{"type": "text", "text": "go"}]}],
        )
        before = client.beta.environments.work.stats(brain.environment_id)
        assert before.depth
        done = init(brain, tmp_path)
        assert (done.returncode, f"its queue: {before.depth} waiting" in done.stdout) == (0, True)
        after = client.beta.environments.work.stats(brain.environment_id)
        assert (after.depth, after.pending) == (before.depth, before.pending)
        client.beta.sessions.archive(session.id)
        refused = init(brain, tmp_path, "--force", key=brain.api_key)
        assert refused.returncode in (1, 2)


def test_a_brain_that_cannot_be_reached(tmp_path: Path) -> None:
    away = ("init", "--environment", "env_1", "--base-url", "http://127.0.0.1:9")
    done = handiwork(*away, cwd=tmp_path, given="key-of-it")
    assert (done.returncode, "--unproven" in done.stderr) == (1, True)
    assert not (tmp_path / "handiwork.toml").exists()
    done = handiwork(*away, "--unproven", cwd=tmp_path, given="key-of-it")
    assert (done.returncode, "not proven" in done.stdout) == (0, True)
    assert (tmp_path / "handiwork.toml").exists()


def test_a_file_that_is_there_is_left_alone(brain: BrainProcess, tmp_path: Path) -> None:
    (tmp_path / "handiwork.toml").write_text("# mine\n")
    done = init(brain, tmp_path)
    assert (done.returncode, "--force" in done.stderr) == (2, True)
    assert (tmp_path / "handiwork.toml").read_text() == "# mine\n"
    done = init(brain, tmp_path, "--force")
    assert (done.returncode, brain.environment_id in (tmp_path / "handiwork.toml").read_text()) == (
        0,
        True,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "handiwork.toml"]
