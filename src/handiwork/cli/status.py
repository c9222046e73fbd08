"""`handiwork status`: what is served, what is stuck, and why."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, marked, say, show, show_one
from handiwork.client.handiwork import Handiwork
from handiwork.model.environment import EnvironmentStatus
from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import DIED, SandboxRecord, SandboxState
from handiwork.model.session import Session, SessionState

MAX_SESSIONS = 1000
"""The newest, and the newest of each state that may be stuck; a status is read by a person."""
MAX_SANDBOXES = 1000
CLAIMING = ("polling", "starting", "full")
"""States of an environment whose work is or will be claimed."""
STUCK_STATES = (SessionState.REFUSED, SessionState.LOST)
WAITING_STATES = (
    *(SessionState.CLAIMED, SessionState.STARTING, SessionState.ACTIVE, SessionState.STOPPED),
    SessionState.REFUSED,
)
"""Those in which a session may wait for something."""


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """A session that waits for something somebody may have to look after."""

    session_id: str
    agent: str
    what: str
    reason: str
    since: datetime


class Died(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that sleeps because it died, not because somebody put it to sleep."""

    sandbox_id: str
    session_id: str
    reason: str
    since: datetime


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, as `--json` prints it."""

    parts: dict[str, str]
    environments: tuple[EnvironmentStatus, ...]
    sessions: dict[str, int]
    stuck: tuple[Stuck, ...]
    died: tuple[Died, ...]


def status(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """Show environments, sessions by state, and what is stuck or died, and why."""
    invocation: Invocation = context.obj
    # Settings that are wrong are a usage error; that nothing runs is what a status may find.
    _ = invocation.settings
    try:
        found = invocation.call(_look)
    except ConfigError as error:
        say(str(error))
        raise typer.Exit(EXIT_FAILED) from None
    if as_json:
        show_one(found, as_json=True)
        return
    for part, state in found.parts.items():
        marked(state == "ready", f"{part}: {state}")
    say("environments:" if found.environments else "environments: none", "bold")
    for one in found.environments:
        marked(one.state in CLAIMING, environment_line(one), "yellow")
    counted = ", ".join(f"{count} {state}" for state, count in sorted(found.sessions.items()))
    say(f"sessions: {counted or 'none yet'}")
    if found.stuck:
        say("stuck:", "bold")
        show(found.stuck, ("session_id", "agent", "what", "since", "reason"), as_json=False)
    if found.died:
        say("sandboxes that died, and wake when they are used:", "bold")
        show(found.died, ("sandbox_id", "session_id", "since", "reason"), as_json=False)


async def _look(client: Handiwork) -> Status:
    parts = await client.parts()
    sessions = await _sessions(client)
    states = Counter(session.state.value for session in sessions)
    return Status(
        parts=parts,
        environments=tuple(await client.environments.list()),
        sessions=dict(states),
        stuck=tuple(stuck(sessions)),
        died=tuple(died([box.record for box in await client.sandboxes.list(limit=MAX_SANDBOXES)])),
    )


async def _sessions(client: Handiwork) -> list[Session]:
    """Return the newest, and older ones that may be stuck: these are who must not drop out."""
    found = {one.id: one for one in await client.sessions.list(limit=MAX_SESSIONS)}
    if len(found) == MAX_SESSIONS:
        for state in {*STUCK_STATES, *WAITING_STATES}:
            older = await client.sessions.list(state=state.value, limit=MAX_SESSIONS)
            found |= {one.id: one for one in older}
    return list(found.values())


def environment_line(one: EnvironmentStatus) -> str:
    """Return how an environment stands, in a line."""
    told = f"{one.id} {one.state}" + (f" ({one.reason})" if one.reason else "")
    told += f" since {one.since:%Y-%m-%d %H:%M:%S}"
    if one.queue is None:
        told += f"; queue not known: {one.queue_error}"
    else:
        told += f"; queue {one.queue.depth} waiting, {one.queue.pending} handed out"
    return f"{told}; {len(one.leases)} leases, {len(one.sessions)} sessions; {one.base_url}"


def stuck(sessions: Sequence[Session]) -> list[Stuck]:
    """Return what waits, and what was refused or lost; the longest first."""
    found = []
    for session in sessions:
        agent = session.agent_name or session.agent_id
        for one in session.waiting:
            what = f"{one.kind.value} {one.name}".strip()
            found.append(_stuck(session, agent, what, one.reason, one.since))
        if session.state in STUCK_STATES:
            what = session.state.value
            found.append(_stuck(session, agent, what, session.reason, session.updated_at))
    return sorted(found, key=lambda one: one.since)


def died(records: Sequence[SandboxRecord]) -> list[Died]:
    """Return the sandboxes that sleep because they died, the longest first."""
    found = [
        Died(sandbox_id=one.id, session_id=one.session_id, reason=one.reason, since=one.updated_at)
        for one in records
        if one.state is SandboxState.SLEEPING and one.reason.startswith(DIED)
    ]
    return sorted(found, key=lambda one: one.since)


def _stuck(session: Session, agent: str, what: str, reason: str, since: datetime) -> Stuck:
    return Stuck(session_id=session.id, agent=agent, what=what, reason=reason, since=since)
