"""The pieces of the composition root; `tests/integration/test_cli.py` starts and stops the whole."""

import asyncio
import base64
import contextlib
import hashlib
import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handiwork import app
from handiwork.config import EnvironmentSettings, Settings, WebhookSettings
from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.model.session import Session, SessionState
from handiwork.sandboxes.probe import Finding
from handiwork.store.layout import Layout
from handiwork.testing.store import MemoryStore


def test_the_sdk_is_loaded_when_the_first_environment_is_served() -> None:
    program = "import sys, handiwork.app; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.prepare(egress_id=None, brain_id=None)
    return layout


def environment(key_file: Path, **more: Any) -> EnvironmentSettings:
    return EnvironmentSettings(id="env_1", key_file=str(key_file), **more)


async def test_webhook_keys_come_from_files_and_from_what_init_stored(tmp_path: Path) -> None:
    text, store = base64.b64encode(bytes(32)).decode(), MemoryStore()
    assert await app._webhook_keys(Settings(), store) == ()
    await store.control_secrets.put("webhook-keys", f"whsec_{text}")
    (tmp_path / "keys").write_text(f"{text}\n{text}\n")
    settings = Settings(webhooks=WebhookSettings(key_files=(str(tmp_path / "keys"),)))
    (tmp_path / "keys").chmod(0o600)
    assert await app._webhook_keys(settings, store) == (bytes(32),) * 3
    (tmp_path / "keys").write_text("no key")
    with pytest.raises(ConfigError, match=f"key_files {tmp_path}/keys: the webhook key"):
        await app._webhook_keys(settings, store)


def test_the_admin_key_is_made_once(layout: Layout) -> None:
    first = app._admin_key_hash(layout)
    key = layout.admin_key.read_text()
    assert (first, app._admin_key_hash(layout)) == (
        hashlib.sha256(key.strip().encode()).digest(),
    ) * 2
    assert stat.S_IMODE(layout.admin_key.stat().st_mode) == 0o600
    assert len(key) > 40


@pytest.mark.parametrize("name", app.NEEDED)
async def test_a_host_that_lacks_what_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def probe(_agent: Path) -> list[Finding]:
        return [
            Finding(name="idmap", ok=False, detail="absent"),
            Finding(name=name, ok=False, detail="refused", fix="use another kernel"),
        ]

    monkeypatch.setattr(app, "probe", probe)
    with pytest.raises(ConfigError, match=f"{name}: refused; use another kernel; .*doctor"):
        await app._prove_host()


async def test_addresses_are_told_whole_and_taken_back(layout: Layout) -> None:
    running: Any = SimpleNamespace(addresses=lambda: {"api": "http://127.0.0.1:1"})
    async with contextlib.AsyncExitStack() as stack:
        app._tell_addresses(layout, running, stack)
        assert json.loads(layout.addresses.read_text()) == running.addresses()
        assert [path.name for path in layout.root.glob("addresses*")] == ["addresses.json"]
    assert not layout.addresses.exists()


class Stopping:
    """A dispatcher that serves some sessions."""

    def __init__(self, *sessions: str) -> None:
        self.sessions = set(sessions)

    async def stop(self, session_id: str) -> bool:
        return session_id in self.sessions


async def test_a_session_is_stopped_where_it_is_served() -> None:
    store = MemoryStore()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for number, place in enumerate(("env_1", "env_2", "env_gone")):
        await store.sessions.save(
            Session(
                id=f"sesn_{number}",
                environment_id=place,
                state=SessionState.ACTIVE,
                created_at=now,
                updated_at=now,
            )
        )
    served: Any = {"env_1": Stopping(), "env_2": Stopping("sesn_0", "sesn_1")}
    await app._stop(store, served, "sesn_1")
    for not_served in ("sesn_0", "sesn_2"):
        with pytest.raises(ConflictError, match="is not being served"):
            await app._stop(store, served, not_served)
    with pytest.raises(NotFoundError):
        await app._stop(store, served, "sesn_none")


def test_readiness_names_what_is_missing() -> None:
    registry: Any = SimpleNamespace(attached=True)
    fine: Any = SimpleNamespace(state="polling", reason="")
    refused: Any = SimpleNamespace(state="refused", reason="the key is not valid")
    assert app._readiness(registry, [fine]) == {"egress": "", "brain 1": ""}
    assert app._readiness(registry, [fine, refused]) == {"egress": "", "brain 1": "", "brain 2": ""}
    registry.attached = False
    assert app._readiness(registry, [refused, refused]) == {
        "egress": "no proxy runs",
        "brain 1": "the key is not valid",
        "brain 2": "the key is not valid",
    }


class Keeping:
    """A supervisor whose programs start, or fail, as their names say."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def keep(self, program: str, started: asyncio.Event) -> None:
        if program == "fails":
            raise ConfigError("it did not start")
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(program)


async def test_programs_run_as_long_as_the_body() -> None:
    supervisor: Any = Keeping()
    programs: Any = ["one", "two"]
    async with app.kept(supervisor, programs):
        assert supervisor.ended == []
    assert sorted(supervisor.ended) == ["one", "two"]


async def test_a_program_that_does_not_start_ends_the_others() -> None:
    supervisor: Any = Keeping()
    programs: Any = ["one", "fails"]
    entered = False
    with pytest.raises(ExceptionGroup) as caught:
        async with app.kept(supervisor, programs):
            entered = True
    assert caught.group_contains(ConfigError, match="did not start")
    assert (entered, supervisor.ended) == (False, ["one"])


async def test_a_task_that_fails_ends_the_body() -> None:
    async def failing() -> None:
        await asyncio.sleep(0.01)
        raise ConfigError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with app.tasks([failing()]):
            await asyncio.sleep(30)
    assert caught.group_contains(ConfigError, match="broken")


def test_the_clock_tells_utc() -> None:
    assert app.now().utcoffset() == timedelta(0)
