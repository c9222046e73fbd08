"""What is held is what it was when it was taken hold of, and each live one has tools of its own."""

from typing import Any, cast

import pytest

from handiwork.sessions.held import Held, Live

NOTHING = cast("Any", None)


def test_it_stays_what_it_was():
    held = Held(record=NOTHING, driver=NOTHING, sandbox=None)
    with pytest.raises(AttributeError):
        held.sandbox = NOTHING  # type: ignore[misc]


def test_each_has_tools_of_its_own():
    one, two = (Live(NOTHING, NOTHING, {}, {}) for _ in range(2))
    assert one.tools is not two.tools
