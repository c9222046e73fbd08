"""A tier that tells of no processes is found out."""

from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import COMMANDS, FakeDriver

CHECKED = [
    "processes are told with what they use",
    "descendants bear the tree of their command",
    "who listens is told",
]


async def test_found_out():
    driver = FakeDriver({**COMMANDS, "python3": COMMANDS["echo"], "sh": COMMANDS["echo"]})
    found = [made async for made in selfcheck(driver, only=CHECKED[::2])]
    assert [made.name for made in found if made.ok] == []
    assert len(found) == 2
