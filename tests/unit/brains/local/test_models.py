"""The model's port: its types cannot be changed by those who hold them."""

import pytest

from handiwork.brains.local.models import ModelRequest, Text


def test_requests_and_blocks_are_frozen():
    with pytest.raises(AttributeError):
        ModelRequest(system="", message="x").message = "y"
    with pytest.raises(AttributeError):
        Text("a").text = "b"
