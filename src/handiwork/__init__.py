"""Handiwork: the hands of AI agents, on machines their owners control."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handiwork.client.handiwork import Handiwork as Handiwork
    from handiwork.tools.context import ToolContext as ToolContext
    from handiwork.tools.registry import tool as tool

__version__ = "0.1.0"

_PUBLIC = {
    "Handiwork": "handiwork.client.handiwork",
    "ToolContext": "handiwork.tools.context",
    "tool": "handiwork.tools.registry",
}
"""What users import from here, and the module that has it, loaded when it is asked for."""


def __getattr__(name: str) -> Any:
    """Load a public name; a process of ours that needs none of them loads none."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'handiwork' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
