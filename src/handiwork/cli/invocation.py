"""What every verb starts from: settings, the data directory, a client of the control plane."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from handiwork import config, process
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConfigError
from handiwork.store.layout import Layout

T = TypeVar("T")


class Invocation:
    """One run of the command line; settings are read when they are first needed."""

    def __init__(self, config_file: Path | None) -> None:
        self._config_file = config_file
        self._settings: config.Settings | None = None

    @property
    def settings(self) -> config.Settings:
        """The settings tree. ConfigError when it is wrong."""
        if self._settings is None:
            self._settings = config.load(self._config_file)
        return self._settings

    @property
    def layout(self) -> Layout:
        """Where the control plane's state lives."""
        return Layout(config.data_dir(self.settings, is_root=process.is_root(), home=Path.home()))

    @property
    def is_served(self) -> bool:
        """Say whether a control plane runs, or starts, on the data directory."""
        if not self.layout.root.exists():
            return False
        try:
            os.close(self.layout.lock())
        except ConfigError:
            return True
        return False

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Handiwork]:
        """Open a client: over TCP when `client.url` is set, else over the unix socket."""
        remote = self.settings.client
        if remote.url:
            client = Handiwork(base_url=remote.url, api_key=_key(remote.key_file))
        else:
            socket = self.layout.api_socket
            if not socket.exists():
                raise ConfigError(
                    f"no control plane runs on {self.layout.root}; start one with `handiwork up`,"
                    " or set client.url and client.key_file for one elsewhere"
                )
            client = Handiwork(socket=socket)
        async with client:
            yield client

    def call(self, verb: Callable[[Handiwork], Awaitable[T]]) -> T:
        """Run one verb against the control plane."""

        async def with_client() -> T:
            async with self.client() as client:
                return await verb(client)

        return asyncio.run(with_client())


def _key(path: str) -> str:
    if not path:
        raise ConfigError("client.url needs client.key_file, a file that holds the admin key")
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(f"client.key_file {path}: {error.strerror}") from None
