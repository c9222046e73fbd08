"""The tools of one session: which calls are ours, and how one is run."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from handiwork.config import ToolSettings
from handiwork.model.errors import (
    ConfigError,
    HandiworkError,
    SandboxUnavailableError,
    ToolFailedError,
)
from handiwork.model.session import BrainSession
from handiwork.model.tool import Block, TextBlock, ToolCall, ToolResult, text_result, well_formed
from handiwork.observe import log
from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools import workspace
from handiwork.tools.background import background
from handiwork.tools.code import execute, run_file
from handiwork.tools.code_calls import NOT_FROM_CODE
from handiwork.tools.context import ToolContext
from handiwork.tools.files import edit, read, write
from handiwork.tools.registry import STOCK, Registry, Tool
from handiwork.tools.search import glob, grep
from handiwork.tools.shell import bash
from handiwork.tools.spool import within_limit
from handiwork.tools.state import ToolState

_FILES = (
    workspace.cf_read,
    workspace.cf_write,
    workspace.cf_edit,
    workspace.cf_grep,
    workspace.list_directory,
    workspace.find,
    workspace.delete,
)


def stock() -> Registry:
    """Return a registry with the stock toolset, and our own tools for agents that declare them."""
    return Registry((bash, read, write, edit, glob, grep, background, execute, run_file, *_FILES))


def check_timeouts(settings: ToolSettings, registry: Registry) -> None:
    """Raise ConfigError for a limit of a tool that is not there."""
    for name in settings.timeout_seconds:
        if registry.get(name) is None:
            known = ", ".join(sorted(one.name for one in registry))
            raise ConfigError(f"tools.timeout_seconds.{name}: there is no such tool; use {known}")


class Toolset(Protocol):
    """What answers the calls of one session."""

    def serves(self, call: ToolCall) -> bool:
        """Say whether the call is ours; others stay pending for somebody else."""
        ...

    def lane(self, call: ToolCall) -> str | None:
        """Name what the call must wait its turn for; None: it may run beside any other."""
        ...

    async def run(self, call: ToolCall) -> ToolResult:
        """Run it to its result; raises only what is no answer to the model."""
        ...


class SessionToolset:
    """The declared tools of a session, in its sandbox. `use` returns the sandbox, awake.

    `state` returns what they have in it; without one it is this toolset's own.
    """

    def __init__(
        self,
        session: BrainSession,
        registry: Registry,
        use: Callable[[], Awaitable[Sandbox]],
        *,
        settings: ToolSettings,
        state: Callable[[], ToolState] | None = None,
    ) -> None:
        self._session = session
        self._registry = registry
        self._use = use
        self._settings = settings
        own = ToolState()
        self._state = state or (lambda: own)
        self._log = log.get("tools")

    def missing(self) -> list[str]:
        """Return the declared custom tools that nobody registered here."""
        return [name for name in self._session.custom_tools if self._registry.get(name) is None]

    def serves(self, call: ToolCall) -> bool:
        """Say whether the agent declares the tool and we have it."""
        return _serves(self._session, self._registry, call)

    def lane(self, call: ToolCall) -> str | None:
        """Return the calling thread for tools whose order matters."""
        found = self._registry.get(call.name)
        return call.thread_id if found is not None and found.ordered else None

    async def run(self, call: ToolCall) -> ToolResult:
        """Run the call; whatever fails becomes a result that says so."""
        found = self._registry.get(call.name)
        if found is None:
            return text_result(call, f"there is no tool {call.name!r}", is_error=True)
        try:
            return await self._run(found, call)
        except ToolFailedError as error:
            return text_result(call, str(error), is_error=True)
        except SandboxUnavailableError as error:
            return text_result(call, f"handiwork: the sandbox failed: {error}", is_error=True)
        except HandiworkError as error:
            return text_result(call, f"handiwork: {error}", is_error=True)
        except Exception:  # noqa: BLE001 - a tool's fault is the call's, not the session's
            self._log.exception("tool failed", tool=call.name, tool_use=call.id)
            return text_result(
                call, f"handiwork: the tool {call.name!r} failed; the log says why", is_error=True
            )

    async def _run(self, found: Tool, call: ToolCall) -> ToolResult:
        context = await self._context(found, call)
        failed = False
        try:
            content = await _ended(found, context, call.input)
        except ToolFailedError as error:
            content, failed = (TextBlock(text=well_formed(str(error))),), True
        content = await within_limit(content, context.spool, call.id)
        return ToolResult(tool_use_id=call.id, content=content, is_error=failed, custom=call.custom)

    async def _context(self, found: Tool, call: ToolCall) -> ToolContext:
        sandbox, state = await self._use(), self._state()
        jobs = state.jobs(
            sandbox,
            spool_bytes=self._settings.spool_mib << 20,
            limit=self._settings.background_jobs,
        )
        one_at_a_time = asyncio.Lock()

        async def call_tool(name: str, given: Mapping[str, Any]) -> tuple[Block, ...]:
            inner = next(one for one in self._from_code() if one.name == name)
            async with one_at_a_time if inner.ordered else contextlib.nullcontext():
                return await _ended(inner, await self._context(inner, call), given)

        return ToolContext(
            session_id=call.session_id,
            agent_id=self._session.agent_id,
            thread_id=call.thread_id,
            tool_use_id=call.id,
            sandbox=sandbox,
            shell=await state.shell(call.thread_id, sandbox),
            spool=jobs.spool,
            jobs=jobs,
            tools=self._from_code(),
            call_tool=call_tool,
            timeout_seconds=self._seconds(found),
            longest_seconds=self._settings.longest_timeout_seconds,
        )

    def _from_code(self) -> tuple[Tool, ...]:
        """Return the tools that code may call: those that the agent declares and we have."""
        declared = (self._registry.get(name) for name in self._session.custom_tools)
        return tuple(one for one in declared if one is not None and one.name not in NOT_FROM_CODE)

    def _seconds(self, found: Tool) -> float:
        """Return a tool's limit: the operator's for it, else its own, else the operator's default."""
        own = found.timeout_seconds or self._settings.default_timeout_seconds
        return self._settings.timeout_seconds.get(found.name, own)


async def _ended(found: Tool, context: ToolContext, given: Mapping[str, Any]) -> tuple[Block, ...]:
    """Run a tool within its time; ToolFailedError."""
    seconds = context.timeout_seconds
    try:
        async with asyncio.timeout(None if found.keeps_time else seconds) as limit:
            return await found.call(context, given)
    except TimeoutError:
        if not limit.expired():
            raise
        raise ToolFailedError(
            f"tool {found.name!r} timed out after {seconds:g}s, its limit here;"
            " it was ended, and its effects may be partial"
        ) from None


def _serves(session: BrainSession, registry: Registry, call: ToolCall) -> bool:
    if call.custom:
        return call.name not in STOCK and registry.get(call.name) is not None
    return session.toolset and call.name in STOCK


class RefusingToolset:
    """Answers every call that we would serve with the reason why this session is not served."""

    def __init__(self, session: BrainSession, registry: Registry, reason: str) -> None:
        self._session = session
        self._registry = registry
        self._reason = reason

    def serves(self, call: ToolCall) -> bool:
        """Say what `SessionToolset` says: a custom tool that we have not may be somebody else's."""
        return _serves(self._session, self._registry, call)

    def lane(self, call: ToolCall) -> None:
        """Any call may run beside any other."""

    async def run(self, call: ToolCall) -> ToolResult:
        """Say the reason."""
        return text_result(
            call, f"handiwork: this session is not served: {self._reason}", is_error=True
        )
