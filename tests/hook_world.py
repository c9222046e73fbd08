"""The world of the boundary with a real hooks' process, kept by the real supervisor."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from egress_world import HOST, World, layer
from handiwork.egress.hooks.process import HooksSettings
from handiwork.egress.hooks.wire import Catalog, Frames, decode_from_hooks
from handiwork.egress.listeners import Listener
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.hook import HookInfo
from handiwork.model.injection import Injection
from handiwork.model.policy import HookRule, Match
from handiwork.model.secret import SealedSecret
from handiwork.supervisor import HooksPython, OwnId, Supervisor, kept

EXAMPLES = Path(__file__).parents[1] / "examples/hooks"
CALL_SECONDS = 1.0


class HookWorld(World):
    """With files of hooks in `files`, and what they keep in `state`."""

    supervisor: Supervisor
    listener: Listener

    @property
    def files(self) -> Path:
        return self.directory / "hooks"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def pid(self) -> int:
        return self.supervisor.pids["hooks"]

    async def write(self, name: str, text: str) -> HookInfo:
        """Write a hook and wait until the process has looked at it."""
        before = {one.name: one for one in await self.catalog()}.get(name)
        draft = self.directory / f"{name}.draft"
        draft.write_text(text)
        draft.rename(self.files / f"{name}.py")
        async with asyncio.timeout(10):
            while True:
                now = {one.name: one for one in await self.catalog()}.get(name)
                if now is not None and now != before:
                    return now
                await asyncio.sleep(0.05)

    async def catalog(self) -> tuple[HookInfo, ...]:
        async with asyncio.timeout(10):
            while True:
                try:
                    return await self._catalog()
                except (OSError, EOFError):
                    await asyncio.sleep(0.05)

    async def _catalog(self) -> tuple[HookInfo, ...]:
        reader, writer = await asyncio.open_unix_connection(self.listener.path)
        frames = Frames()
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    raise EOFError
                for payload in frames.take(data):
                    message = decode_from_hooks(payload)
                    assert isinstance(message, Catalog)
                    return message.hooks
        finally:
            writer.transport.abort()

    async def restarted(self, before: int) -> None:
        """Wait until another process serves than that of the id."""
        async with asyncio.timeout(10):
            while True:
                if self.supervisor.pids.get("hooks", before) != before:
                    break
                await asyncio.sleep(0.02)
        await self.catalog()

    def hooking(
        self,
        *names: str,
        hosts: tuple[str, ...] = (HOST,),
        secrets: tuple[SealedSecret, ...] = (),
        inject: tuple[Injection, ...] = (),
        body_bytes: int = 0,
        told: tuple[str, ...] = (),
        **match: object,
    ) -> EgressGrant:
        """Return a grant whose session layer has the hooks and whose tenant layer the destination."""
        rule = HookRule(
            id="hooks",
            match=Match(hosts=hosts, **match),  # type: ignore[arg-type]
            hooks=names,
            secrets=told,
            body_bytes=body_bytes,
            inject=inject,
        )
        everywhere = self.service("*", rule="all", schemes=("https", "http"))
        return EgressGrant(
            layers=(layer(everywhere, scope="tenant", name="all"), layer(rule)), secrets=secrets
        )


@asynccontextmanager
async def hook_world(
    directory: Path,
    files: dict[str, str],
    *,
    call_seconds: float = CALL_SECONDS,
    memory_mib: int = 512,
    own: OwnId | None = None,
    reach: EgressGrant | None = None,
) -> AsyncIterator[HookWorld]:
    """Make a world whose hooks are these files; `reach` is what they may do themselves."""
    made = HookWorld(directory)
    made.files.mkdir(exist_ok=True)
    for name, text in files.items():
        (made.files / f"{name}.py").write_text(text)
    made.state.mkdir(exist_ok=True)
    if own is not None:
        os.chown(made.state, own.user, own.user)
    async with AsyncExitStack() as stack:
        run = directory / "run"
        settings = made.settings(hook_seconds=call_seconds)
        made.registry = EgressRegistry(run, settings, hooks=True)
        await made.listen(made.upstream, made.authority.server(HOST, "*.example.org"))
        stack.push_async_callback(_end, made)
        await stack.enter_async_context(made.registry)
        assert made.registry.hooks
        made.listener = made.registry.hooks
        await made.start_proxy()
        exit_fd = None
        if reach is not None:
            binding = EgressBinding(id="hooks", kind="hook", ca_id="hooks")
            exit_fd = await stack.enter_async_context(made.registry.bind_tool(binding, reach))
        told = HooksSettings(
            listen_fd=made.listener.fileno(),
            directory=str(made.files),
            state=str(made.state),
            exit_fd=exit_fd,
            call_seconds=call_seconds,
            memory_mib=memory_mib,
        )
        made.supervisor = Supervisor()
        program = HooksPython(told, made.listener, own)
        await stack.enter_async_context(kept(made.supervisor, [program]))
        yield made


async def _end(made: HookWorld) -> None:
    for client in made.clients:
        await client.close()
    for server in made.servers:
        server.close()
    for upstream in made.upstreams:
        await upstream.drop()
    for process in made.processes:
        if process.returncode is None:
            async with asyncio.timeout(5):
                await process.wait()
