"""A tier that connects nowhere is found out."""

from handiwork.sandboxes.selfcheck import names, selfcheck
from handiwork.testing.sandbox import COMMANDS, FakeDriver

CHECKED = [name for name in names() if "port" in name or "connection" in name]


async def test_found_out():
    driver = FakeDriver({**COMMANDS, "python3": COMMANDS["echo"]})
    found = [made async for made in selfcheck(driver, only=CHECKED)]
    assert len(found) == 4
    assert [made.name for made in found if made.ok] == []
