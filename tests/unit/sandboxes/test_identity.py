"""A machine's name in its files: another one where there is one, none where there is none."""

from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.identity import MACHINE_ID, renew_machine_id
from handiwork.testing.sandbox import FakeDriver


async def test_it_is_written_only_where_one_is_kept():
    box = await FakeDriver().create(SandboxSpec(id="sbx_aaaaaaaa"))
    await renew_machine_id(box.files, bytes)
    assert [entry.name for entry in await box.files.list("/etc")] == []
    await box.files.write(MACHINE_ID, b"another\n")
    await renew_machine_id(box.files, lambda size: b"\xab" * size)
    assert await box.files.read(MACHINE_ID) == b"ab" * 16 + b"\n"
    assert (await box.files.stat(MACHINE_ID)).mode == 0o444
