"""Structured log: JSON lines (or text) on stderr, session and sandbox ids bound by context."""

import logging
import sys
from typing import Any, TextIO

import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def set_up(
    *, level: str = "info", format: str = "json", process: str, stream: TextIO | None = None
) -> None:
    """Send every log line of this process to the stream (stderr), each with its process's name."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream or sys.stderr, format="%(message)s")
    structlog.contextvars.bind_contextvars(process=process)


def get(name: str) -> Any:
    """Return a logger whose lines carry `part`; it may be made before `set_up`."""
    return structlog.get_logger(part=name)
