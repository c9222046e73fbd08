"""Tools as JSON Schemas, of every shape that theirs have: each by a name, with what it takes and gives."""

from collections.abc import Mapping
from typing import Any

Tools = Mapping[str, Mapping[str, Any]]


def takes(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def field(schema: Any) -> dict[str, Any]:
    return {"inputSchema": takes(value=schema)}


_FIELDS: Mapping[str, Any] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "anything": {},
    "true": True,
    "false": False,
    "unheard-of": {"type": "money"},
    "described": {"type": "string", "description": "What it is."},
    "described in lines": {"type": "string", "description": "One.\nTwo.\r\nThree."},
    "end of a comment": {"type": "string", "description": "a */ b */"},
    "format": {"type": "string", "format": "date-time"},
    "format and description": {"type": "string", "format": "uri", "description": "Where."},
    "format with the end of a comment": {"type": "string", "format": "*/"},
    "pattern and bounds": {"type": "string", "pattern": "^a", "minLength": 1, "maxLength": 9},
    "default": {"type": "integer", "default": 3, "minimum": 0},
    "enum": {"type": "string", "enum": ["a", "b"]},
    "enum of one": {"enum": ["only"]},
    "enum of numbers": {"enum": [1, 2.5, -3]},
    "enum of kinds": {"enum": ["a", 1, True, False, None]},
    "enum of none": {"enum": []},
    "enum of objects": {"enum": [{"a": 1}, [1, 2]]},
    "enum with quotes": {
        "enum": ['a "quoted"', "back\\slash", "tab\t", "line\n", "\u2028", "\x01"]
    },
    "enum of emptiness": {"enum": [""]},
    "nullable enum": {"enum": ["a"], "nullable": True},
    "const": {"const": "fixed"},
    "const number": {"const": 7},
    "const true": {"const": True},
    "const null": {"const": None},
    "const object": {"const": {"a": [1, "x", None]}},
    "const with quotes": {"const": '"\\'},
    "nullable": {"type": "string", "nullable": True},
    "nullable object": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "nullable": True,
    },
    "nullable array": {"type": "array", "items": {"type": "string"}, "nullable": True},
    "nullable null": {"type": "null", "nullable": True},
    "nullable anything": {"nullable": True},
    "types": {"type": ["string", "number"]},
    "types with null": {"type": ["string", "null"]},
    "types of numbers": {"type": ["integer", "number"]},
    "types of array": {"type": ["array", "null"], "items": {"type": "string"}},
    "types of object": {"type": ["object", "null"], "properties": {"a": {"type": "string"}}},
    "one type in a list": {"type": ["boolean"]},
    "no type in a list": {"type": []},
    "array": {"type": "array", "items": {"type": "string"}},
    "array of anything": {"type": "array"},
    "array of true": {"type": "array", "items": True},
    "array of enum": {"type": "array", "items": {"enum": ["a", "b"]}},
    "array of enum of one": {"type": "array", "items": {"enum": ["a"]}},
    "array of unions": {"type": "array", "items": {"type": ["string", "null"]}},
    "array of arrays": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    "array of objects": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "tag": {"type": "string"}},
            "required": ["id"],
        },
    },
    "tuple": {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
    "tuple by prefix": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
    "empty tuple": {"type": "array", "prefixItems": []},
    "items without a type": {"items": {"type": "string"}},
    "object": {"type": "object", "properties": {"a": {"type": "string"}}},
    "object of nothing": {"type": "object"},
    "object of nothing more": {"type": "object", "additionalProperties": False},
    "object of no properties": {"type": "object", "properties": {}},
    "object without a type": {"properties": {"a": {"type": "number"}}},
    "map": {"type": "object", "additionalProperties": {"type": "number"}},
    "map of anything": {"type": "object", "additionalProperties": True},
    "map without a type": {"additionalProperties": {"type": "number"}},
    "map beside properties": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "additionalProperties": {"type": "string"},
    },
    "patterns": {"type": "object", "patternProperties": {"^x-": {"type": "string"}}},
    "required": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "required": ["b", "c"],
    },
    "true and false": {"type": "object", "properties": {"a": True, "b": False}, "required": ["a"]},
    "odd names": {
        "type": "object",
        "properties": {
            "a-b": {"type": "string"},
            "1": {"type": "string"},
            "with space": {"type": "string"},
            "$ok_1": {"type": "string"},
            'quo"te': {"type": "string"},
            "back\\": {"type": "string"},
            "line\nbreak": {"type": "string"},
            "ü": {"type": "string"},
            "class": {"type": "string"},
            "": {"type": "string"},
        },
    },
    "nested": {
        "type": "object",
        "properties": {
            "a": {
                "type": "object",
                "properties": {"b": {"type": "object", "properties": {"c": {"type": "boolean"}}}},
                "required": ["b"],
            }
        },
    },
    "any of": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    "any of one": {"anyOf": [{"type": "string"}]},
    "any of the same": {"anyOf": [{"type": "string"}, {"type": "string", "format": "uri"}]},
    "any of null": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "any of objects": {
        "anyOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ]
    },
    "any of none": {"anyOf": []},
    "one of": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "nullable any of": {"anyOf": [{"type": "string"}, {"type": "number"}], "nullable": True},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}},
            {"type": "object", "properties": {"b": {"type": "string"}}},
        ]
    },
    "all of one": {"allOf": [{"type": "string"}]},
    "all of unions": {"allOf": [{"type": ["string", "number"]}, {"enum": ["a", "b"]}]},
    "all of none": {"allOf": []},
    "array of any of": {
        "type": "array",
        "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    },
    "array of all of": {
        "type": "array",
        "items": {"allOf": [{"type": "string"}, {"minLength": 1}]},
    },
    "not": {"not": {"type": "string"}},
    "if then": {"if": {"type": "string"}, "then": {"minLength": 1}},
    "large numbers": {"enum": [1e21, 123456789012345680000, 1e-7, 0.000001, 5e-324]},
    "negative nothing": {"enum": [0, -1]},
}
_NAMES = (
    *("plain", "with-hyphen", "with.dot", "with space", "snake_case", "camelCase", "UPPER"),
    *("1st", "9", "class", "delete", "await", "arguments", "eval", "a$b", "$", "_", "__x"),
    *("a--b", "a._-b", "quo'te", 'double"quote', "ümlaut", "日本", "a/b", "a:b", "tab\there"),
    *("mcp__server__tool", "trailing_", "x_1_y", "a_b_c", "constructor", "toString", "null"),
)
_WHOLE: Tools = {
    "no_arguments": {"inputSchema": {"type": "object", "properties": {}}},
    "nothing_said": {"inputSchema": {}},
    "takes_a_text": {"inputSchema": {"type": "string"}},
    "takes_anything": {"inputSchema": True},
    "described": {"description": "Does it.", "inputSchema": takes(a={"type": "string"})},
    "described_in_lines": {"description": " Does\nit.\r\n\r\nWell. ", "inputSchema": {}},
    "described_with_an_end": {"description": "a */ b", "inputSchema": {}},
    "described_by_nothing": {"description": "  ", "inputSchema": {}},
    "parameters_described": {
        "description": "Adds.",
        "inputSchema": takes(
            a={"type": "number", "description": "The first."},
            b={"type": "number", "description": "The\nsecond */."},
            c={"type": "number"},
        ),
    },
    "gives_an_object": {
        "inputSchema": {},
        "outputSchema": {
            "type": "object",
            "properties": {"total": {"type": "integer", "description": "How many."}},
            "required": ["total"],
        },
    },
    "gives_a_text": {"inputSchema": {}, "outputSchema": {"type": "string"}},
    "gives_nothing": {"inputSchema": {}, "outputSchema": {"type": "null"}},
    "refers": {
        "inputSchema": {
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/Point"}, "q": {"$ref": "#/definitions/Q"}},
            "$defs": {"Point": takes(x={"type": "number"}, y={"type": "number"})},
            "definitions": {"Q": {"enum": ["q"]}},
        }
    },
    "refers_to_itself": {
        "inputSchema": {
            "type": "object",
            "properties": {
                "value": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#"}},
            },
        }
    },
    "refers_in_a_circle": {
        "inputSchema": {
            "$ref": "#/$defs/A",
            "$defs": {
                "A": takes(b={"$ref": "#/$defs/B"}),
                "B": takes(a={"$ref": "#/$defs/A"}),
            },
        }
    },
    "refers_elsewhere": {"inputSchema": takes(a={"$ref": "https://example.com/schema.json"})},
    "refers_to_nothing": {"inputSchema": takes(a={"$ref": "#/$defs/Nothing"})},
    "refers_by_anchor": {
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"$ref": "#anchor"}},
            "$defs": {"A": {"$anchor": "anchor", "type": "string"}},
        }
    },
    "refers_with_escapes": {
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/a~1b~0c"}},
            "$defs": {"a/b~c": {"type": "boolean"}},
        }
    },
    "refers_into_a_list": {
        "inputSchema": takes(
            a={"anyOf": [{"type": "string"}, {"type": "number"}]},
            b={"$ref": "#/properties/a/anyOf/1"},
        )
    },
    "nullable_reference": {
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A", "nullable": True}},
            "$defs": {"A": {"type": "string"}},
        }
    },
}
_OF_SERVERS: Tools = {
    "create_issue": {
        "description": "Create a new issue in a GitHub repository",
        "inputSchema": {
            "type": "object",
            "properties": {
                "owner": {"type": "string", "description": "Repository owner"},
                "repo": {"type": "string", "description": "Repository name"},
                "title": {"type": "string"},
                "body": {"type": "string"},
                "assignees": {"type": "array", "items": {"type": "string"}},
                "milestone": {"type": "number"},
                "labels": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["owner", "repo", "title"],
            "additionalProperties": False,
            "$schema": "http://json-schema.org/draft-07/schema#",
        },
    },
    "list_pull_requests": {
        "description": "List and filter repository pull requests",
        "inputSchema": {
            "type": "object",
            "properties": {
                "owner": {"type": "string"},
                "repo": {"type": "string"},
                "state": {"type": "string", "enum": ["open", "closed", "all"]},
                "sort": {
                    "type": "string",
                    "enum": ["created", "updated", "popularity", "long-running"],
                },
                "per_page": {"type": "number", "minimum": 1, "maximum": 100, "default": 30},
            },
            "required": ["owner", "repo"],
        },
    },
    "edit_file": {
        "description": "Make line-based edits to a text file.\nReturns a git-style diff.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "edits": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "oldText": {"type": "string", "description": "Text to search for"},
                            "newText": {"type": "string", "description": "Text to replace with"},
                        },
                        "required": ["oldText", "newText"],
                        "additionalProperties": False,
                    },
                },
                "dryRun": {"type": "boolean", "default": False, "description": "Preview changes"},
            },
            "required": ["path", "edits"],
            "additionalProperties": False,
        },
    },
    "create_entities": {
        "description": "Create multiple new entities in the knowledge graph",
        "inputSchema": {
            "type": "object",
            "properties": {
                "entities": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "description": "The name of the entity"},
                            "entityType": {"type": "string"},
                            "observations": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["name", "entityType", "observations"],
                    },
                }
            },
            "required": ["entities"],
        },
    },
    "slack_post_message": {
        "description": "Post a new message to a Slack channel",
        "inputSchema": {
            "type": "object",
            "properties": {
                "channel_id": {"type": "string"},
                "text": {"type": "string"},
                "blocks": {"type": "array", "items": {"type": "object"}},
                "thread_ts": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["channel_id", "text"],
        },
    },
    "query": {
        "description": "Run a read-only SQL query",
        "inputSchema": {"type": "object", "properties": {"sql": {"type": "string"}}},
        "outputSchema": {
            "type": "object",
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}},
                "rows": {"type": "array", "items": {"type": "array", "items": {}}},
            },
            "required": ["columns", "rows"],
        },
    },
    "fetch": {
        "description": "Fetches a URL from the internet",
        "inputSchema": {
            "description": "Parameters for fetching a URL.",
            "properties": {
                "url": {
                    "description": "URL to fetch",
                    "format": "uri",
                    "minLength": 1,
                    "type": "string",
                },
                "max_length": {
                    "default": 5000,
                    "description": "Maximum number of characters to return.",
                    "exclusiveMaximum": 1000000,
                    "exclusiveMinimum": 0,
                    "title": "Max Length",
                    "type": "integer",
                },
                "raw": {"default": False, "title": "Raw", "type": "boolean"},
            },
            "required": ["url"],
            "title": "Fetch",
            "type": "object",
        },
    },
    "sequentialthinking": {
        "inputSchema": {
            "type": "object",
            "properties": {
                "thought": {"type": "string", "description": "Your current thinking step"},
                "nextThoughtNeeded": {"type": "boolean"},
                "thoughtNumber": {"type": "integer", "minimum": 1},
                "branchId": {"type": "string"},
            },
            "required": ["thought", "nextThoughtNeeded", "thoughtNumber"],
        }
    },
}
CORPUS: Mapping[str, Tools] = {
    **{f"field: {name}": {"one": field(schema)} for name, schema in _FIELDS.items()},
    **{f"name: {name}": {name: {"inputSchema": takes(a={"type": "string"})}} for name in _NAMES},
    **{f"tool: {name}": {name: given} for name, given in _WHOLE.items()},
    **{f"server: {name}": {name: given} for name, given in _OF_SERVERS.items()},
    "several": {**_WHOLE, **_OF_SERVERS},
    "none": {},
}
"""Sets of tools by what is shown with them."""
