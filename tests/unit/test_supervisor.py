"""Real processes: Python's own web server stands for a program of ours (it says when it serves)."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from handiwork import supervisor
from handiwork.config import LogSettings
from handiwork.egress.hooks.process import HooksSettings
from handiwork.egress.listeners import Listener
from handiwork.model.errors import ConfigError
from handiwork.model.language_model import KeyedModel, ModelSettings
from handiwork.supervisor import Launch, Supervisor


class WebServer:
    name = "web server"

    def __init__(self, **launch: object) -> None:
        self._launch = launch
        self.ups: list[int] = []
        self.downs = 0
        self.again = asyncio.Event()

    def launch(self) -> Launch:
        settings = {
            "module": "http.server",
            "arguments": ("0", "--bind", "127.0.0.1"),
        } | self._launch
        return Launch(**settings)  # type: ignore[arg-type]  # the test's own keywords

    async def up(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        if not await process.stdout.readline():
            raise OSError("it ended at once")
        self.ups.append(process.pid)
        if len(self.ups) > 1:
            self.again.set()

    def down(self) -> None:
        self.downs += 1


async def test_a_killed_program_is_started_again_and_a_stop_ends_it() -> None:
    program, started = WebServer(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(Supervisor().keep(program, started))
        await started.wait()
        os.kill(program.ups[0], signal.SIGKILL)
        await program.again.wait()
        kept.cancel()
    assert program.downs == 2
    for pid in program.ups:
        assert not Path(f"/proc/{pid}").exists()


async def test_a_first_start_that_fails_is_told() -> None:
    program = WebServer(module="this_module_does_not_exist", arguments=())
    with pytest.raises(ConfigError, match="web server did not start: it ended at once"):
        await Supervisor().keep(program, asyncio.Event())
    assert program.downs == 1


async def test_a_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    program, started = WebServer(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(Supervisor().keep(program, started))
        await started.wait()
        os.kill(program.ups[0], signal.SIGSTOP)
        kept.cancel()
    assert not Path(f"/proc/{program.ups[0]}").exists()


async def test_a_program_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "must-not-be-seen")
    program, started = WebServer(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(Supervisor().keep(program, started))
        await started.wait()
        environment = Path(f"/proc/{program.ups[0]}/environ").read_bytes()
        open_files = [str(link.readlink()) for link in Path(f"/proc/{program.ups[0]}/fd").iterdir()]
        kept.cancel()
    assert b"must-not-be-seen" not in environment
    assert all("handiwork.db" not in name for name in open_files)


async def test_a_program_that_ends_again_and_again_is_started_ever_later() -> None:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        if len(delays) == 8:
            raise asyncio.CancelledError

    class ShortLived(WebServer):
        async def up(self, process: asyncio.subprocess.Process) -> None:
            await super().up(process)
            process.kill()

    with pytest.raises(asyncio.CancelledError):
        await Supervisor(sleep).keep(ShortLived(), asyncio.Event())
    assert delays == [*supervisor.BACKOFF_SECONDS, 5.0, 5.0]


class Piped:
    """What the local brain's process is to who tells it things."""

    def __init__(self) -> None:
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(b'{"ready": true}\n')
        self.lines: list[bytes] = []
        self.stdin = self

    def write(self, data: bytes) -> None:
        self.lines.append(data)

    def is_closing(self) -> bool:
        return False


async def test_models_reach_a_running_brain_and_every_later_one() -> None:
    settings = ModelSettings(name="m", kind="openai", base_url="http://x")
    told = [KeyedModel(settings=settings, key="sk-1")]
    brain, process = supervisor.LocalBrain({"models": []}, (3,), None), Piped()
    assert json.loads(brain.launch().stdin_line) == {"models": []}
    brain.tell_models(told)
    await brain.up(process)  # type: ignore[arg-type]  # it has what is used of a process
    [line] = process.lines
    assert json.loads(line)["models"][0]["key"] == "sk-1"
    brain.tell_models([])
    assert json.loads(process.lines[1]) == {"models": []}
    brain.down()
    brain.tell_models(told)
    assert len(process.lines) == 2
    assert json.loads(brain.launch().stdin_line)["models"][0]["settings"]["name"] == "m"


def test_a_program_logs_as_its_operator_wants(tmp_path: Path) -> None:
    told = LogSettings(level="debug", format="text")
    brain = supervisor.LocalBrain({}, (3,), None, told)
    assert brain.launch().arguments == ("--log-level", "debug", "--log-format", "text")
    own = supervisor.OwnId(7, tmp_path)
    as_root = supervisor.LocalBrain({}, (3,), own, told).launch().arguments
    assert as_root == ("--user", "7", "--home", str(tmp_path), *brain.launch().arguments)


async def test_hooks_are_served_only_while_their_process_is(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "s")
    told = HooksSettings(listen_fd=listener.fileno(), directory=str(tmp_path), state=str(tmp_path))
    program = supervisor.HooksPython(told, listener, supervisor.OwnId(7, tmp_path))
    launch = program.launch()
    assert launch.descriptors == (listener.fileno(),)
    assert launch.arguments[:4] == ("--user", "7", "--home", str(tmp_path))
    assert json.loads(launch.stdin_line)["directory"] == str(tmp_path)
    plain, started = supervisor.HooksPython(told, listener, None), asyncio.Event()

    async def greeted() -> bytes:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        try:
            return await reader.read(4)
        finally:
            writer.close()

    assert await greeted() == b""
    keeper = Supervisor()
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(keeper.keep(plain, started))
        await started.wait()
        assert len(await greeted()) == 4
        kept.cancel()
    assert await greeted() == b""
    listener.close()
