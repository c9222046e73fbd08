"""Where nobody keeps files elsewhere, a sandbox has those of its driver."""

from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.sessions.keeping import NoKeeping
from handiwork.testing.sandbox import FakeDriver
from session_world import clock


async def test_nobody_keeps_anything() -> None:
    record = SandboxRecord(
        id="sbx_aaaaaaaa",
        tier="namespace",
        image="host",
        state=SandboxState.SLEEPING,
        created_at=clock(),
        updated_at=clock(),
    )
    keeping, driver = NoKeeping(), FakeDriver()
    await keeping.interrupt(record.id)
    keeping.slept(record, driver, stopping=False)
    await keeping.closing(record, driver)
    assert not keeping.keeps_closed(driver)
    assert await keeping.recoverable(record) == ""
    assert await keeping.recover(record, driver) == ""
