"""Without the setting there is no process; with it, one that is served with what the settings say."""

from contextlib import AsyncExitStack
from pathlib import Path

from handiwork import hook_process
from handiwork.config import HooksSettings, Settings
from handiwork.egress.control import ProxySettings
from handiwork.egress.registry import EgressRegistry
from handiwork.store.layout import Layout
from handiwork.supervisor import Supervisor
from handiwork.testing.store import MemoryStore


class Parts:
    def __init__(self, root: Path, hooks: HooksSettings) -> None:
        self.settings = Settings(hooks=hooks)
        self.layout = Layout(root)
        self.store = MemoryStore()


async def test_off_unless_the_settings_say_so(tmp_path: Path) -> None:
    supervisor = Supervisor()
    async with (
        EgressRegistry(tmp_path / "run", ProxySettings(keys="", audit="")) as registry,
        AsyncExitStack() as stack,
    ):
        assert registry.hooks is None
        parts = Parts(tmp_path, HooksSettings())
        assert await hook_process.started(parts, registry, supervisor, stack) is None
    assert supervisor.pids == {}
