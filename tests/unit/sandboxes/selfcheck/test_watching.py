"""A tier that watches nothing is found out."""

from handiwork.sandboxes.selfcheck import names, selfcheck
from handiwork.testing.sandbox import COMMANDS, FakeDriver

CHECKED = [name for name in names() if "watched" in name or name == "changes of files are told"]


async def test_found_out():
    driver = FakeDriver({**COMMANDS, "sh": COMMANDS["true"]})
    found = [made async for made in selfcheck(driver, only=CHECKED)]
    assert len(found) == 4
    assert [made.name for made in found if made.ok] == []
