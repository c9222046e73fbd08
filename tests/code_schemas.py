"""Tools with the shapes of schemas that real ones have, and tools of well-known MCP servers as they publish them."""

from typing import Any

from handiwork.tools.code_interface import CodeTool

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
WHOLE = {"type": "integer"}
FLAG = {"type": "boolean"}
NOTHING = {"type": "null"}
UNSAID: Any = None


def fields(_required: str = "", /, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object; which of its fields are required, in words."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": _required.split()} if _required else schema


def told(description: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**(schema or TEXT), **more, "description": description}


def several(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _deep(levels: int, schema: Any, *, by: str = "items") -> Any:
    for _ in range(levels):
        schema = several(schema) if by == "items" else fields(inner=schema)
    return schema


_NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": fields("value", value=TEXT, children=several({"$ref": "#/$defs/node"})),
    },
}
_EVEN = {
    "$ref": "#/definitions/even",
    "definitions": {
        "even": fields(next={"$ref": "#/definitions/odd"}),
        "odd": fields(next={"$ref": "#/definitions/even"}, of={"const": 1}),
    },
}

SHAPES: dict[str, Any] = {
    # --- simple ones
    "string": TEXT,
    "number": NUMBER,
    "integer": WHOLE,
    "boolean": FLAG,
    "null": NOTHING,
    "no_type": {},
    "true_schema": True,
    "false_schema": False,
    "title_alone": {"title": "Anything"},
    "unknown_type": {"type": "any"},
    "type_file": {"type": "file"},
    "bounded_string": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^a"},
    "bounded_number": {"type": "number", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3},
    "defaulted": fields(limit={"type": "integer", "default": 10, "examples": [1, 2]}),
    "encoded": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
    # --- several types
    "types": {"type": ["string", "number", "boolean", "null"]},
    "types_of_one": {"type": ["string"]},
    "types_none": {"type": []},
    "types_bare_array_object": {"type": ["array", "object"]},
    "types_number_integer": {"type": ["number", "integer"]},
    "types_array_with_items": {"type": ["array", "null"], "items": TEXT},
    "types_object_with_fields": {"type": ["object", "null"], "properties": {"a": TEXT}},
    "nullable_string": {"type": "string", "nullable": True},
    "nullable_false": {"type": "string", "nullable": False},
    "nullable_object": {**fields(a=TEXT), "nullable": True},
    "nullable_enum": {"enum": ["a", "b"], "nullable": True},
    "nullable_enum_with_null": {"enum": ["a", None], "nullable": True},
    "nullable_anything": {"nullable": True},
    "nullable_null": {"type": "null", "nullable": True},
    "nullable_reference": {
        **fields(a={"$ref": "#/$defs/a", "nullable": True}),
        "$defs": {"a": TEXT},
    },
    "nullable_array": {"type": "array", "items": TEXT, "nullable": True},
    # --- values
    "enum_strings": {"type": "string", "enum": ["asc", "desc"]},
    "enum_one": {"enum": ["only"]},
    "enum_none": {"enum": []},
    "enum_numbers": {"type": "integer", "enum": [1, 2, -3]},
    "enum_fractions": {"enum": [0.5, -2.25, 1e21, 1e-7, 123456789012345680000]},
    "enum_mixed": {"enum": ["a", 1, True, None, False]},
    "enum_twice": {"enum": ["a", "b", "a"]},
    "enum_of_objects": {"enum": [{"a": 1, "b": ["x", None]}, [1, 2]]},
    "enum_quotes": {"enum": ['say "hi"', "it's", "back\\slash", "`tick`", "${x}"]},
    "enum_controls": {"enum": ["a\nb", "a\tb", "a\rb", "\x00", "\x07", "\x7f"]},
    "enum_letters": {"enum": ["é", "日本", "😀", "\u2028", "\u2029"]},
    "enum_comment_end": {"enum": ["*/", "/*", "//"]},
    "const_string": {"const": "fixed"},
    "const_number": {"const": 42},
    "const_false": {"const": False},
    "const_null": {"const": None},
    "const_object": {"const": {"kind": "x", "n": [1, {"a": None}]}},
    "const_with_type": {"type": "string", "const": "x"},
    "enum_and_const": {"enum": ["a", "b"], "const": "a"},
    # --- arrays
    "array_bare": {"type": "array"},
    "array_of_strings": several(TEXT),
    "array_of_arrays": several(several(NUMBER)),
    "array_of_objects": several(fields("a", a=TEXT, b=NUMBER)),
    "array_of_anything": several({}),
    "array_items_true": several(True),
    "array_items_false": several(False),
    "array_of_union": several({"anyOf": [TEXT, NUMBER]}),
    "array_of_types": several({"type": ["string", "null"]}),
    "array_of_enum": several({"enum": ["a", "b"]}),
    "array_of_one_value": several({"enum": ["a | b"]}),
    "array_of_nullable": several({"type": "string", "nullable": True}),
    "array_of_all": several({"allOf": [fields(a=TEXT), fields(b=TEXT)]}),
    "array_bounded": several(TEXT, minItems=1, maxItems=3, uniqueItems=True),
    "array_contains": {"type": "array", "contains": {"const": 1}},
    "items_without_type": {"items": TEXT},
    "tuple_prefix": {"type": "array", "prefixItems": [TEXT, NUMBER, {}]},
    "tuple_closed": {"type": "array", "prefixItems": [TEXT, NUMBER], "items": False},
    "tuple_more": {"type": "array", "prefixItems": [TEXT], "items": NUMBER},
    "tuple_old": {"type": "array", "items": [TEXT, {"type": "null"}]},
    "tuple_empty": {"type": "array", "prefixItems": []},
    "tuple_of_objects": {"type": "array", "prefixItems": [fields("a", a=TEXT), fields(b=WHOLE)]},
    "tuple_of_union": {"type": "array", "prefixItems": [{"anyOf": [TEXT, NOTHING]}, TEXT]},
    # --- objects
    "object_bare": {"type": "object"},
    "object_empty": fields(),
    "object_closed": {"type": "object", "properties": {}, "additionalProperties": False},
    "object_required": fields("a c", a=TEXT, b=NUMBER, c=FLAG),
    "object_required_unknown": fields("zzz", a=TEXT),
    "object_without_type": {"properties": {"a": TEXT}, "required": ["a"]},
    "object_open": {**fields(a=TEXT), "additionalProperties": True},
    "object_map": {"type": "object", "additionalProperties": NUMBER},
    "object_map_of_objects": {"type": "object", "additionalProperties": fields("a", a=TEXT)},
    "object_map_of_anything": {"type": "object", "additionalProperties": {}},
    "object_map_without_type": {"additionalProperties": TEXT},
    "object_and_map": {**fields("a", a=TEXT), "additionalProperties": several(WHOLE)},
    "object_patterns": {"type": "object", "patternProperties": {"^x-": TEXT}},
    "object_patterns_closed": {
        "type": "object",
        "patternProperties": {"^x-": TEXT},
        "additionalProperties": False,
    },
    "object_names": {"type": "object", "propertyNames": {"pattern": "^a"}, "minProperties": 1},
    "object_conditions": {
        **fields("kind", kind={"enum": ["a", "b"]}, a=TEXT),
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["a"]},
        "dependentRequired": {"a": ["kind"]},
    },
    "object_true_false_fields": fields("yes", yes=True, no=False),
    "object_nested": fields("a", a=fields("b", b=fields("c", c=fields(d=several(TEXT))))),
    "object_odd_names": fields(
        **dict.fromkeys(
            ["a-b", "a b", "", "1st", 'q"q', "it's", "back\\slash", "class", "$x", "_y", "é"], TEXT
        )
    ),
    "object_control_names": fields(**dict.fromkeys(["a\nb", "\t", "\x01", "\u2028", "*/"], TEXT)),
    "object_names_of_objects": fields(
        **dict.fromkeys(["constructor", "toString", "hasOwnProperty", "length"], NUMBER)
    ),
    "object_numbers_as_names": fields(**dict.fromkeys(["b", "10", "9", "a"], TEXT)),
    # --- combinations
    "any_of": {"anyOf": [TEXT, NUMBER]},
    "any_of_one": {"anyOf": [TEXT]},
    "any_of_same": {"anyOf": [TEXT, {"type": "string", "format": "uri"}]},
    "any_of_null": {"anyOf": [fields("a", a=TEXT), NOTHING]},
    "any_of_nested": {"anyOf": [{"anyOf": [TEXT, NUMBER]}, {"oneOf": [FLAG, NOTHING]}]},
    "any_of_false": {"anyOf": [False, TEXT]},
    "one_of": {"oneOf": [{"const": "a"}, {"const": "b"}]},
    "one_of_tagged": {
        "oneOf": [
            fields("kind", kind={"const": "circle"}, radius=NUMBER),
            fields("kind", kind={"const": "square"}, side=NUMBER),
        ],
        "discriminator": {"propertyName": "kind"},
    },
    "all_of": {"allOf": [fields("a", a=TEXT), fields("b", b=NUMBER)]},
    "all_of_one": {"allOf": [TEXT]},
    "all_of_none": {"allOf": []},
    "all_of_union": {"allOf": [{"anyOf": [TEXT, NOTHING]}, TEXT]},
    "not_this": {"not": TEXT},
    "any_of_beside_fields": {
        **fields(a=TEXT, b=TEXT),
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "all_of_conditions": {
        **fields(a=TEXT, b=TEXT),
        "allOf": [{"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"required": ["a"]}],
    },
    "all_of_beside_fields": {**fields(a=TEXT), "allOf": [fields(b=TEXT)]},
    # --- references
    "reference": {"$ref": "#/$defs/a", "$defs": {"a": TEXT}},
    "reference_in_field": {
        **fields("a", a={"$ref": "#/definitions/Point"}),
        "definitions": {"Point": fields("x y", x=NUMBER, y=NUMBER)},
    },
    "reference_twice": {
        **fields(a={"$ref": "#/$defs/p"}, b={"$ref": "#/$defs/p"}),
        "$defs": {"p": fields("x", x=NUMBER)},
    },
    "reference_of_reference": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": WHOLE},
    },
    "reference_escaped": {"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": TEXT}},
    "reference_percent": {"$ref": "#/$defs/a%20b", "$defs": {"a b": TEXT}},
    "reference_to_nothing": {"$ref": "#/$defs/none"},
    "reference_outside": {"$ref": "https://schema.test/a.json"},
    "reference_anchor": {"$ref": "#point", "$defs": {"p": {"$anchor": "point", "type": "string"}}},
    "reference_to_true": {"$ref": "#/$defs/t", "$defs": {"t": True}},
    "reference_to_false": {**fields(a={"$ref": "#/$defs/f"}), "$defs": {"f": False}},
    "reference_into_list": {"anyOf": [TEXT, {"$ref": "#/anyOf/0"}, NUMBER]},
    "recursive_tree": _NODE,
    "recursive_two": _EVEN,
    "recursive_root": fields(name=TEXT, parent={"$ref": "#"}),
    "recursive_itself": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "recursive_json": {
        "$ref": "#/$defs/json",
        "$defs": {
            "json": {
                "anyOf": [
                    TEXT,
                    NUMBER,
                    several({"$ref": "#/$defs/json"}),
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/json"}},
                ]
            }
        },
    },
    # --- what people are told
    "formats": fields(
        **{
            name.replace("-", "_"): {"type": "string", "format": name}
            for name in ["date-time", "date", "email", "uri", "uuid", "ipv4", "binary"]
        }
    ),
    "format_and_description": fields(at=told("when it is", format="date-time")),
    "description_ends_comment": fields(a=told("glob as src/**/*.ts */ alert(1) /*")),
    "description_of_lines": fields(a=told("first\nsecond\r\nthird"), b=told("tab\there  two")),
    "description_of_marks": fields(a=told("@deprecated use `b` {x} <b> \\ \"q\" 'q'")),
    "description_long": fields(a=told("word " * 400)),
    "description_empty": fields(a=told("")),
    "description_of_letters": fields(a=told("数 “quoted” … 😀")),
    "description_of_object": fields(a=told("an object", fields("b", b=told("inner")))),
    "description_beside_reference": {
        **fields(a={"$ref": "#/$defs/x", "description": "this one"}),
        "$defs": {"x": told("that one")},
    },
    # --- much of it
    "deep_arrays": _deep(18, TEXT),
    "deep_arrays_too_deep": _deep(25, TEXT),
    "deep_objects": _deep(18, TEXT, by="fields"),
    "deep_objects_too_deep": _deep(25, TEXT, by="fields"),
    "wide_object": fields(**{f"field_{n}": told(f"the {n}th") for n in range(200)}),
    "wide_enum": {"enum": [f"value_{n}" for n in range(300)]},
    # --- what is no schema
    "type_of_number": {"type": 7},
    "any_of_text": {"anyOf": "string"},
    "properties_of_list": {"type": "object", "properties": ["a", "b"]},
    "items_of_text": {"type": "array", "items": "string"},
}
"""Schemas by name."""

ODD_NAMES = (
    "1st",
    "my-tool",
    "class",
    "delete",
    "a.b.c",
    "with space",
    'quo"te',
    "it's",
    "back\\slash",
    "日本",
    "",
    "$cash",
    "__proto",
    "a--b",
    "UPPER_case",
    "mcp__server__do-it",
    "server/tool",
    "x*/y",
    "line\nbreak",
    "await",
    "async",
    "emoji😀",
    "nbsp\u00a0x",
    "trailing_",
    "_1a",
)
"""Names of tools, as somebody's server may have them."""

_GITHUB = {"owner": told("Repository owner"), "repo": told("Repository name")}
_PAGES = {
    "page": told("Page number for pagination (min 1)", NUMBER, minimum=1),
    "perPage": told("Results per page for pagination (min 1, max 100)", NUMBER, maximum=100),
}
_CONTENT = {
    "type": "object",
    "properties": {"content": {"type": "string"}},
    "required": ["content"],
    "additionalProperties": False,
    "$schema": "http://json-schema.org/draft-07/schema#",
}

PUBLISHED: tuple[tuple[str, str, Any, Any], ...] = (
    (
        "read_text_file",
        "Read the complete contents of a file from the file system as text. Use the 'head' parameter to read only the first N lines.",
        {
            **fields(
                "path",
                path=TEXT,
                tail=told("If provided, returns only the last N lines of the file", NUMBER),
                head=told("If provided, returns only the first N lines of the file", NUMBER),
            ),
            "$schema": "http://json-schema.org/draft-07/schema#",
        },
        _CONTENT,
    ),
    ("read_multiple_files", "Read several files.", fields("paths", paths=several(TEXT)), _CONTENT),
    (
        "edit_file",
        "Make line-based edits to a text file.\nReturns a git-style diff. Only works within allowed directories.",
        fields(
            "path edits",
            path=TEXT,
            edits=several(
                {
                    **fields(
                        "oldText newText",
                        oldText=told("Text to search for - must match exactly"),
                        newText=told("Text to replace with"),
                    ),
                    "additionalProperties": False,
                }
            ),
            dryRun=told("Preview changes using git-style diff format", FLAG, default=False),
        ),
        _CONTENT,
    ),
    (
        "directory_tree",
        "Get a recursive tree view of files and directories as a JSON structure.",
        fields("path", path=TEXT, excludePatterns=several(TEXT, default=[])),
        UNSAID,
    ),
    (
        "fetch",
        "Fetches a URL from the internet and optionally extracts its contents as markdown.",
        {
            "description": "Parameters for fetching a URL.",
            "properties": {
                "url": {
                    "description": "URL to fetch",
                    "format": "uri",
                    "minLength": 1,
                    "title": "Url",
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
                "raw": {
                    "default": False,
                    "description": "Get the actual HTML content of the requested page, without simplification.",
                    "title": "Raw",
                    "type": "boolean",
                },
            },
            "required": ["url"],
            "title": "Fetch",
            "type": "object",
        },
        UNSAID,
    ),
    (
        "git_log",
        "Shows the commit logs",
        {
            "properties": {
                "repo_path": {"title": "Repo Path", "type": "string"},
                "max_count": {"default": 10, "title": "Max Count", "type": "integer"},
                "start_timestamp": {
                    "anyOf": [TEXT, NOTHING],
                    "default": None,
                    "description": "Start timestamp for filtering commits.",
                    "title": "Start Timestamp",
                },
            },
            "required": ["repo_path"],
            "title": "GitLog",
            "type": "object",
        },
        UNSAID,
    ),
    (
        "create_entities",
        "Create multiple new entities in the knowledge graph",
        fields(
            "entities",
            entities=several(
                fields(
                    "name entityType observations",
                    name=told("The name of the entity"),
                    entityType=told("The type of the entity"),
                    observations=told(
                        "An array of observation contents associated with the entity",
                        several(TEXT),
                    ),
                )
            ),
        ),
        fields("entities", entities=several(fields("name", name=TEXT))),
    ),
    (
        "sequentialthinking",
        "A detailed tool for dynamic and reflective problem-solving through thoughts.\n\nWhen to use this tool:\n- Breaking down complex problems into steps",
        fields(
            "thought nextThoughtNeeded thoughtNumber totalThoughts",
            thought=told("Your current thinking step"),
            nextThoughtNeeded=told("Whether another thought step is needed", FLAG),
            thoughtNumber=told("Current thought number (e.g., 1, 2, 3)", WHOLE, minimum=1),
            totalThoughts=told("Estimated total thoughts needed (e.g., 5, 10)", WHOLE, minimum=1),
            isRevision=told("Whether this revises previous thinking", FLAG),
        ),
        UNSAID,
    ),
    (
        "create_pull_request_review",
        "Create a review on a pull request",
        fields(
            "owner repo pull_number body event",
            **_GITHUB,
            pull_number=told("Pull request number", NUMBER),
            body=told("The body text of the review"),
            event={
                "type": "string",
                "enum": ["APPROVE", "REQUEST_CHANGES", "COMMENT"],
                "description": "The review action to perform",
            },
            comments=told(
                "Comments to post as part of the review (specify either position or line, not both)",
                several(
                    {
                        "anyOf": [
                            fields("path position body", path=TEXT, position=NUMBER, body=TEXT),
                            fields("path line body", path=TEXT, line=NUMBER, body=TEXT),
                        ]
                    }
                ),
            ),
        ),
        UNSAID,
    ),
    (
        "search_repositories",
        "Search for GitHub repositories",
        fields("query", query=told("Search query (see GitHub search syntax)"), **_PAGES),
        UNSAID,
    ),
    (
        "push_files",
        "Push multiple files to a GitHub repository in a single commit",
        fields(
            "owner repo branch files message",
            **_GITHUB,
            branch=told("Branch to push to"),
            files=told(
                "Array of files to push", several(fields("path content", path=TEXT, content=TEXT))
            ),
            message=told("Commit message"),
        ),
        UNSAID,
    ),
    (
        "browser_click",
        "Perform click on a web page",
        {
            **fields(
                "element ref",
                element=told("Human-readable element description"),
                ref=told("Exact target element reference from the page snapshot"),
                doubleClick=told("Whether to perform a double click", FLAG),
                button=told("Button to click, defaults to left", enum=["left", "right", "middle"]),
                modifiers=told(
                    "Modifier keys to press",
                    several({"type": "string", "enum": ["Alt", "Control", "Meta", "Shift"]}),
                ),
            ),
            "additionalProperties": False,
        },
        UNSAID,
    ),
    (
        "browser_tabs",
        "List, create, close, or select a browser tab.",
        fields("action", action={"enum": ["list", "new", "close", "select"]}, index=NUMBER),
        UNSAID,
    ),
    (
        "slack_post_message",
        "Post a new message to a Slack channel",
        fields("channel_id text", channel_id=told("The ID of the channel"), text=TEXT),
        UNSAID,
    ),
    ("query", "Run a read-only SQL query", fields(sql=TEXT), UNSAID),
    (
        "brave_web_search",
        "Performs a web search using the Brave Search API.",
        fields(
            "query",
            query=told("Search query (max 400 chars, 50 words)"),
            count=told("Number of results (1-20, default 10)", NUMBER, default=10),
        ),
        UNSAID,
    ),
    (
        "maps_directions",
        "Get directions between two points",
        fields(
            "origin destination",
            origin=told("Starting point address or coordinates"),
            destination=told("Ending point address or coordinates"),
            mode=told("Travel mode", enum=["driving", "walking", "bicycling", "transit"]),
        ),
        UNSAID,
    ),
    (
        "convert_time",
        "Convert time between timezones",
        fields(
            "source_timezone time target_timezone",
            source_timezone=told("Source IANA timezone name (e.g., 'America/New_York')."),
            time=told("Time to convert in 24-hour format (HH:MM)"),
            target_timezone=told("Target IANA timezone name"),
        ),
        UNSAID,
    ),
    (
        "API-post-page",
        "Notion | Create a page",
        {
            **fields(
                "parent properties",
                parent={"$ref": "#/$defs/parentRequest"},
                properties={
                    **fields("title", title=several(fields("text", text=fields(content=TEXT)))),
                    "additionalProperties": False,
                },
                children=several({"$ref": "#/$defs/blockObjectRequest"}),
                icon=told("A page icon", {"type": "string", "format": "json"}),
            ),
            "$defs": {
                "parentRequest": {
                    "anyOf": [
                        fields("page_id", page_id={"type": "string", "format": "uuid"}),
                        fields("database_id", database_id={"type": "string", "format": "uuid"}),
                    ]
                },
                "blockObjectRequest": {
                    **fields(type={"enum": ["paragraph", "to_do"]}),
                    "additionalProperties": True,
                },
            },
        },
        {"type": "object", "additionalProperties": True},
    ),
)
"""Name, description, what it takes and what it gives."""


def corpus() -> dict[str, CodeTool]:
    """Return every tool by the name of its case: each shape taken and given, odd names, and published ones."""
    shapes = {
        name: CodeTool(name=name, description="", input_schema=schema, output_schema=schema)
        for name, schema in SHAPES.items()
    }
    odd = {
        f"named {name!r}": CodeTool(name=name, input_schema=fields(a=TEXT)) for name in ODD_NAMES
    }
    published = {
        f"published {name}": CodeTool(
            name=name, description=description, input_schema=takes, output_schema=gives
        )
        for name, description, takes, gives in PUBLISHED
    }
    return {**shapes, **odd, **published}
