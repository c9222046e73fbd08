"""What a tool is given."""

import dataclasses

import pytest

from handiwork.tools.context import ToolContext


def test_a_context_does_not_change_under_a_tool(context: ToolContext) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.session_id = "sesn_2"  # type: ignore[misc]
    assert context.tenant == "default"
