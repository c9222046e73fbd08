"""The files that an agent left."""

import pytest

from api_stand_in import NOW, PretendSandboxes
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.run import OutputFile
from handiwork.model.session import Session, SessionState
from handiwork.sessions.run_files import left_files
from handiwork.sessions.sandboxes import SandboxRequest
from handiwork.testing.store import MemoryStore


async def test_files_by_path_and_nothing_of_what_is_not_there() -> None:
    store = MemoryStore()
    sandboxes = PretendSandboxes(store)
    assert await left_files(store, sandboxes, "sesn_1") == ()
    record = await sandboxes.create(SandboxRequest())
    await store.sessions.save(
        Session(
            id="sesn_1",
            environment_id="e",
            state=SessionState.ACTIVE,
            sandbox_id=record.id,
            created_at=NOW,
            updated_at=NOW,
        )
    )
    assert await left_files(store, sandboxes, "sesn_1") == ()
    files = sandboxes.live[record.id].files
    for path in ("b/c.txt", "a.txt", "link@"):
        await files.write(f"/workspace/outputs/{path}", b"12")
    assert await left_files(store, sandboxes, "sesn_1") == (
        OutputFile(path="/workspace/outputs/a.txt", size=2),
        OutputFile(path="/workspace/outputs/b/c.txt", size=2),
    )
    await sandboxes.sleep(record.id)
    with pytest.raises(SandboxUnavailableError, match="sleeping"):
        await left_files(store, sandboxes, "sesn_1")
