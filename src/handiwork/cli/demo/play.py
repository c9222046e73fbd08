"""The demo's acts: what a user does with the official SDK, what an operator sees, each claim checked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from handiwork.app import Running
from handiwork.brains.conversation import Conversation, conversation
from handiwork.cli.demo import claims, story
from handiwork.cli.demo.claims import ClaimError, Step
from handiwork.cli.demo.narrator import Narrator
from handiwork.cli.demo.upstream import Upstream
from handiwork.client.handiwork import Handiwork
from handiwork.model.policy import parse_policy
from handiwork.model.run import RunEvent
from handiwork.model.sandbox import SandboxState
from handiwork.model.session import SessionState

SLEEP_CHECKS, SLEEP_CHECK_SECONDS = 400, 0.05
SEARCH = {
    "environment of every process": "cat /proc/[0-9]*/environ",
    "process list": "cat /proc/[0-9]*/cmdline",
    "files": "find / -xdev -type f -not -path '/usr/*' -not -path '/proc/*' -size -8M -exec cat {} +",
}
"""What the sandbox is asked for; the search itself is made outside, so that it plants nothing."""


@dataclass
class Stage:
    """Where the story plays."""

    plane: Running
    world: Upstream
    key: str = field(repr=False)
    agent_id: str = ""
    session_id: str = ""


async def play(stage: Stage, narrator: Narrator) -> None:
    """Play every act. ClaimError names the claim that does not hold."""
    layout = stage.plane.layout
    brain_key = layout.local_brain_key.read_text().strip()
    async with (
        Handiwork(socket=layout.api_socket) as hands,
        conversation(base_url=stage.plane.brain_url, api_key=brain_key) as talk,
    ):
        await _prepare(stage, hands, talk, narrator)
        steps = await _first_turn(stage, talk, narrator)
        sandbox_id = await _look_inside(stage, hands, steps, narrator)
        await _sleep_and_wake(stage, hands, talk, narrator, sandbox_id)
        with narrator.step("every decision is on record, with its rule"):
            claims.check_recorded(await hands.audit.query(session_id=stage.session_id))


async def _prepare(stage: Stage, hands: Handiwork, talk: Conversation, narrator: Narrator) -> None:
    with narrator.step(f"the operator sealed a secret for {story.API_HOST} and wrote a policy"):
        await hands.secrets.put(story.SECRET_NAME, stage.key, hosts=[story.API_HOST])
        policy = story.policy(stage.world.port, stage.world.trust_anchor)
        text = msgspec.json.encode(policy).decode()
        await hands.policies.put(parse_policy(text, format="json"))
    with narrator.step("the official SDK created an agent and a session on the local brain"):
        stage.agent_id = await talk.make_agent("demo", model="scripted", system=story.script())
        await hands.agents.put(stage.agent_id, policy=story.POLICY_NAME)
        stage.session_id = await talk.make_session(
            stage.agent_id, stage.plane.environment_id, title="demo"
        )


async def _first_turn(stage: Stage, talk: Conversation, narrator: Narrator) -> list[Step]:
    with narrator.step("Handiwork claimed the session and ran the agent's tools in a sandbox"):
        steps = await _turn(stage, talk, story.FIRST_MESSAGE, narrator)
    with narrator.step("the agent's test failed, it read why, edited, and it passed"):
        claims.check_program(steps)
    with narrator.step(f"{story.API_HOST} was reached and saw the real key"):
        claims.check_injected(steps, stage.world.keys_right)
    with narrator.step("its echo of the key came back masked"):
        claims.check_masked(steps, stage.key)
    with narrator.step(f"{story.EVIL_HOST} was refused, and the rule named"):
        claims.check_denied(steps, stage.world.requests)
    with narrator.step("raw TCP and DNS of a denied name went nowhere"):
        claims.check_closed(steps)
    return steps


async def _look_inside(
    stage: Stage, hands: Handiwork, steps: list[Step], narrator: Narrator
) -> str:
    with narrator.step("the sandbox has no network card but loopback"):
        session = await hands.sessions.get(stage.session_id)
        box = await hands.sandboxes.get(session.sandbox_id)
        devices = (await box.exec(["cat", "/proc/net/dev"])).stdout.decode()
        cards = [line.split(":")[0].strip() for line in devices.splitlines() if ":" in line]
        claims.demand("no card", cards == ["lo"], f"it has {cards}")
    with narrator.step("the key is in no environment, file, process list or answer inside"):
        found = [("answers", "".join(step.output for step in steps).encode())]
        for place, command in SEARCH.items():
            told = await box.exec(f"{command} 2>/dev/null")
            claims.demand("hidden", not told.truncated, f"{place} is more than can be searched")
            found.append((place, told.stdout))
        claims.check_hidden(found, stage.key)
    return session.sandbox_id


async def _sleep_and_wake(
    stage: Stage, hands: Handiwork, talk: Conversation, narrator: Narrator, sandbox_id: str
) -> None:
    with narrator.step("idle, the session sleeps: no process is left"):
        state = await _until_asleep(stage, hands, sandbox_id)
        claims.check_slept(state.value, pids_of(sandbox_id))
    with narrator.step("the next message wakes it, files intact"):
        steps = await _turn(stage, talk, story.SECOND_MESSAGE, narrator)
        session = await hands.sessions.get(stage.session_id)
        claims.check_woken(steps, sandbox_id, session.sandbox_id)


async def _turn(stage: Stage, talk: Conversation, text: str, narrator: Narrator) -> list[Step]:
    narrator.say(f"user: {text}")
    async with talk.following(stage.session_id) as happenings:
        await talk.say(stage.session_id, text)
        return await _steps(happenings, narrator)


async def _steps(happenings: AsyncIterator[RunEvent], narrator: Narrator) -> list[Step]:
    """Follow one turn to its end and return the tool calls with their results."""
    called: dict[str, RunEvent] = {}
    steps = []
    async for happening in happenings:
        match happening.kind:
            case "agent.message":
                narrator.message(happening.text)
            case "agent.tool_use":
                called[happening.id] = happening
                narrator.call(happening.tool, _argument(happening))
            case "user.tool_result":
                call = called[happening.tool_use_id]
                narrator.answer(happening.text, is_error=happening.is_error)
                steps.append(
                    Step(
                        tool=call.tool,
                        argument=_argument(call),
                        output=happening.text,
                        is_error=happening.is_error,
                    )
                )
            case "session.error":
                raise ClaimError("program", happening.text or "the agent could not go on")
            case "session.status_idle" if happening.stop_reason != "requires_action":
                return steps
    raise ClaimError("session", "the event stream ended before the turn")


def _argument(happening: RunEvent) -> str:
    given = happening.input
    return str(given.get("command") or given.get("file_path") or given.get("pattern") or "")


async def _until_asleep(stage: Stage, hands: Handiwork, sandbox_id: str) -> SandboxState:
    for _ in range(SLEEP_CHECKS):
        if (await hands.sessions.get(stage.session_id)).state is SessionState.SLEEPING:
            break
        await asyncio.sleep(SLEEP_CHECK_SECONDS)
    return (await hands.sandboxes.get(sandbox_id)).record.state


def pids_of(sandbox_id: str) -> list[int]:
    """Return the processes of this host whose command line names the sandbox: its launcher."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and sandbox_id.encode() in _command_line(entry)
    ]


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
