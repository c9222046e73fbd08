"""The local brain as a process of its own, for tests: start it, use it, kill it, start it again.

with BrainProcess.start(tmp_path / "brain.db") as brain:
    client = anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url)
"""

import json
import secrets
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_SECONDS = 20
STOP_SECONDS = 10
ENVIRONMENT_ID = "env_01testtesttesttest"


def script(*steps: dict[str, Any]) -> str:
    """Return the `system` of a scripted agent that plays these steps at every message."""
    return json.dumps({"turns": [{"steps": list(steps)}]})


def call(tool: str, save: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Return a step that calls one tool."""
    return {"call": {"tool": tool, "input": arguments, **({"save": save} if save else {})}}


TOOLSET = {"type": "agent_toolset_20260401"}


class BrainProcess:
    """A running server. `base_url`, `api_key`, `environment_id`, `environment_key` reach it."""

    def __init__(
        self,
        database: Path,
        api_key: str,
        environment_key: str,
        port: int,
        bootstrap: dict[str, Any] | None = None,
    ) -> None:
        self._bootstrap = bootstrap or {}
        self.database = database
        self.api_key = api_key
        self.environment_key = environment_key
        self.environment_id = ENVIRONMENT_ID
        self.port = port
        self.log = database.with_suffix(".log")
        self._process = self._started()

    @classmethod
    def start(cls, database: Path, **bootstrap: Any) -> Self:
        """Start on a free loopback port, with fresh keys and one environment; more for its start."""
        api_key = f"sk-ant-api03-{secrets.token_urlsafe(24)}"
        environment_key = f"sk-ant-oat01-{secrets.token_urlsafe(24)}"
        return cls(database, api_key, environment_key, 0, bootstrap)

    @property
    def base_url(self) -> str:
        """Where clients find it; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._ended()

    def restart(self) -> None:
        """Start it again on the same database, port and keys."""
        self._process = self._started()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return self._ended()

    def terminate(self) -> int:
        """Ask it to stop; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def close_stdin(self) -> int:
        """Let it see the end of its supervisor; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        with socket.socket() as listening, self.log.open("ab") as log:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", self.port))
            listening.listen(128)
            self.port = listening.getsockname()[1]
            process = subprocess.Popen(
                [sys.executable, "-m", "handiwork.brains.local"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(listening.fileno(),),
            )
            bootstrap = {
                "database": str(self.database),
                "listen_fd": listening.fileno(),
                "api_key": self.api_key,
                "environments": [
                    {"id": self.environment_id, "name": "test", "key": self.environment_key}
                ],
                "webhook_hosts": ["127.0.0.1"],
                **self._bootstrap,
            }
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(bootstrap).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            if not readable or json.loads(process.stdout.readline() or b"null") != {"ready": True}:
                raise AssertionError(f"the local brain did not start: {self.log.read_text()}")
        except BaseException:
            process.kill()
            _close(process)
            raise
        return process

    def _ended(self) -> int:
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            _close(self._process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()
    process.wait(STOP_SECONDS)
