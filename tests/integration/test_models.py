"""A real model's loop end to end: wire format, local brain, engine, sandbox; only the model is told."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, BrainProcess
from control_plane_process import ControlPlane
from handiwork.cli import main
from provider_stand_in import Asked, Provider, Reply, anthropic_reply, openai_reply

KEY = "sk-ant-not-a-real-key-0123456789"
ECHO = "echo hi-$((6*7))"
pytestmark = pytest.mark.timeout(120)


def play_openai(asked: Asked) -> Reply:
    """Ask for one command, then say what it printed."""
    last = asked.body["messages"][-1]
    if last["role"] == "tool":
        return openai_reply(f"It says {last['content'].strip()}.")
    return openai_reply("I try.", [("c1", "bash", {"command": ECHO})])


def play_anthropic(asked: Asked) -> Reply:
    last = asked.body["messages"][-1]["content"][-1]
    if last["type"] == "tool_result":
        return anthropic_reply(f"It says {last['content'][0]['text'].strip()}.", cached=(7, 0))
    return anthropic_reply("I try.", [("c1", "bash", {"command": ECHO})])


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(KEY) as running:
        yield running


def user(text: str) -> list[dict]:
    return [{"type": "user.message", "content": [{"type": "text", "text": text}]}]


def until_idle(client: anthropic.Anthropic, session_id: str, count: int = 1) -> list:
    limit = time.monotonic() + 30
    while True:
        events = list(client.beta.sessions.events.list(session_id))
        ended = [
            event
            for event in events
            if event.type == "session.status_idle" and event.stop_reason.type != "requires_action"
        ]
        if len(ended) >= count:
            return events
        assert time.monotonic() < limit, [event.type for event in events]
        time.sleep(0.05)


def add_model(plane: ControlPlane, monkeypatch, tmp_path: Path, name: str, kind: str, url: str):
    (tmp_path / "key").write_text(KEY)
    with (tmp_path / "key").open() as key:
        monkeypatch.setattr("sys.stdin", key)
        monkeypatch.setenv("HANDIWORK_DATA_DIR", str(plane.data))
        given = ("--kind", kind, "--base-url", url, "--model", "m-1", "--key")
        assert main.run(["model", "add", name, *given]) == 0


def test_models_are_added_at_run_time_and_work_in_a_sandbox(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with control_plane_process.running(tmp_path) as plane:
        add_model(plane, monkeypatch, tmp_path, "open", "openai", provider.openai_url)
        add_model(plane, monkeypatch, tmp_path, "claude", "anthropic", provider.anthropic_url)
        base_url = plane.addresses["local_brain"]
        with anthropic.Anthropic(api_key=plane.brain_key, base_url=base_url) as client:
            for name, play in (("open", play_openai), ("claude", play_anthropic)):
                provider.answer = play
                events = one_turn(client, plane.addresses["environment_id"], name)
                said = [e.content[0].text for e in events if e.type == "agent.message"]
                assert said == ["I try.", "It says hi-42."]
        log = plane.log.read_text()
    assert KEY not in log
    assert KEY not in "".join(json.dumps(each.body) for each in provider.requests)


def one_turn(client: anthropic.Anthropic, environment_id: str, model: str) -> list:
    agent = client.beta.agents.create(name="a", model=model, system="be brief", tools=[TOOLSET])
    session = client.beta.sessions.create(
        agent=agent.id, environment_id=environment_id, initial_events=user("try it")
    )
    return until_idle(client, session.id)


def bootstrapped(tmp_path: Path, provider: Provider) -> BrainProcess:
    settings = {"name": "open", "kind": "openai", "base_url": provider.openai_url, "model": "m"}
    return BrainProcess.start(tmp_path / "brain.db", models=[{"settings": settings, "key": KEY}])


def test_a_preview_is_streamed_and_a_kill_in_mid_request_asks_again_once(
    tmp_path: Path, provider: Provider
) -> None:
    whole = openai_reply("one two three four", size=2)
    provider.replies.append(Reply(whole.pieces[:5], held=True))
    provider.replies.append(Reply(whole.pieces, pause=0.01))
    with (
        bootstrapped(tmp_path, provider) as brain,
        anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client,
    ):
        agent = client.beta.agents.create(name="a", model="open")
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        client.beta.sessions.events.send(session.id, events=user("count"))
        limit = time.monotonic() + 20
        while not provider.requests:
            assert time.monotonic() < limit
            time.sleep(0.01)
        brain.kill()
        brain.restart()
        events = until_idle(client, session.id)
        said = [event for event in events if event.type == "agent.message"]
        assert [event.content[0].text for event in said] == ["one two three four"]
        assert len(provider.requests) == 2
        provider.replies.append(Reply(whole.pieces, pause=0.01))
        shown: dict[str, str] = {}
        deltas = ["agent.message"]
        with client.beta.sessions.events.stream(session.id, event_deltas=deltas) as stream:
            client.beta.sessions.events.send(session.id, events=user("again"))
            for event in stream:
                if event.type == "event_start":
                    shown[event.event.id] = ""
                elif event.type == "event_delta":
                    shown[event.event_id] += event.delta.content.text
                elif event.type == "agent.message":
                    assert shown == {event.id: event.content[0].text}
                elif event.type == "session.status_idle":
                    break
        assert list(shown.values()) == ["one two three four"]
        usage = client.beta.sessions.retrieve(session.id).usage
        assert (usage.input_tokens, usage.output_tokens) == (20, 10)
