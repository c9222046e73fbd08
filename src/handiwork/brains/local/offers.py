"""What a model is told of the tools that it may call. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from handiwork.brains.local.models import ToolOffer
from handiwork.brains.local.turn import CLIENT_TOOLS, TOOLSET, verdict

Schema = dict[str, Any]


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


_FILE = _text("Path of the file, absolute or relative to /workspace.")
_BELOW = _text("Directory to search below; /workspace when left out.")

STOCK = {
    offer.name: offer
    for offer in (
        ToolOffer(
            "bash",
            "Run a command in a bash shell that keeps its directory, variables and background jobs"
            " from one call to the next. Standard output and error come back together, with the"
            " exit code when it is not 0.",
            _object(
                [],
                command=_text("The command; required unless restart is true."),
                timeout_ms={
                    "type": "integer",
                    "description": "Milliseconds that the command may take; 120000 when left out.",
                },
                restart={
                    "type": "boolean",
                    "description": "Start the shell afresh instead of running a command.",
                },
            ),
        ),
        ToolOffer(
            "read",
            "Read a file. Images and PDF files are shown as such. A long file needs view_range.",
            _object(
                ["file_path"],
                file_path=_FILE,
                view_range={
                    "type": "array",
                    "items": {"type": "integer"},
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "First and last line, counted from 1; a last line of 0 or less"
                    " is the end of the file.",
                },
            ),
        ),
        ToolOffer(
            "write",
            "Write a file, replacing one that exists; missing directories are made.",
            _object(
                ["file_path", "content"], file_path=_FILE, content=_text("All of its new content.")
            ),
        ),
        ToolOffer(
            "edit",
            "Replace a text in a file. The text must stand there exactly once, unless replace_all"
            " is true.",
            _object(
                ["file_path", "old_string", "new_string"],
                file_path=_FILE,
                old_string=_text("The text that stands there, exactly."),
                new_string=_text("What stands there afterwards."),
                replace_all={"type": "boolean", "description": "Replace every occurrence."},
            ),
        ),
        ToolOffer(
            "glob",
            "List files whose paths match a pattern such as `**/*.py`, the newest first.",
            _object(
                ["pattern"],
                pattern=_text("A relative pattern; `**` crosses directories."),
                path=_BELOW,
            ),
        ),
        ToolOffer(
            "grep",
            "Search files for a regular expression; each hit is `path:line:text`.",
            _object(["pattern"], pattern=_text("The regular expression."), path=_BELOW),
        ),
    )
}


def offers(tools: Iterable[Mapping[str, Any]]) -> tuple[ToolOffer, ...]:
    """Return what an agent's `tools` let its model call."""
    found: list[ToolOffer] = []
    for tool in tools:
        if tool["type"] == TOOLSET:
            allowed = (STOCK[name] for name in CLIENT_TOOLS)
            found += [each for each in allowed if verdict([tool], each.name).permission != "deny"]
        elif tool["type"] == "custom":
            found.append(ToolOffer(tool["name"], tool["description"], tool["input_schema"]))
    return tuple(found)
