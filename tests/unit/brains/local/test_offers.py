"""What a model is told of its tools."""

import json

from handiwork.brains.local.offers import STOCK, offers
from handiwork.brains.local.turn import CLIENT_TOOLS, TOOLSET

POLICY = {"enabled": True, "permission_policy": {"type": "always_ask"}}


def test_the_toolset_offers_what_is_enabled_and_custom_tools_come_as_they_are():
    off = {**POLICY, "name": "edit", "enabled": False}
    custom = {"type": "custom", "name": "mine", "description": "d", "input_schema": {"a": 1}}
    found = offers([{"type": TOOLSET, "default_config": POLICY, "configs": [off]}, custom])
    assert [each.name for each in found] == ["bash", "read", "write", "glob", "grep", "mine"]
    assert found[-1].input_schema == {"a": 1}


def test_every_stock_tool_has_a_schema_that_any_provider_takes():
    assert tuple(STOCK) == CLIENT_TOOLS
    for offer in STOCK.values():
        assert offer.input_schema["type"] == "object"
        assert set(offer.input_schema["required"]) <= set(offer.input_schema["properties"])
        assert not {"$ref", "anyOf", "allOf"} & set(json.dumps(offer.input_schema).split('"'))
