"""A tier that runs commands wrongly is found out."""

import msgspec
import pytest

from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import COMMANDS, FakeDriver

SABOTAGE = {
    "true and false tell their exit codes": {"false": COMMANDS["true"]},
    "arguments arrive as given": {"echo": COMMANDS["true"]},
    "standard input is fed and ended": {"cat": COMMANDS["true"]},
    "a missing program is told": {"no-such-program": COMMANDS["true"]},
    "environment is what was asked for": {
        "env": lambda request: COMMANDS["env"](msgspec.structs.replace(request, env={}))
    },
}


@pytest.mark.parametrize("name", SABOTAGE)
async def test_found_out(name):
    driver = FakeDriver({**COMMANDS, **SABOTAGE[name]})
    found = [made async for made in selfcheck(driver, areas=["command"])]
    assert [made.name for made in found if not made.ok] == [name]
