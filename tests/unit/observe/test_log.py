"""The log: JSON lines with the process and the part, nothing below the level."""

import io
import json

import pytest
import structlog

from handiwork.observe import log


@pytest.fixture(autouse=True)
def own_log():
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_lines() -> None:
    stream = io.StringIO()
    log.set_up(level="info", process="egress", stream=stream)
    logger = log.get("registry")
    logger.debug("not told")
    with structlog.contextvars.bound_contextvars(session="sesn_1"):
        logger.info("opened", binding="sbx_1\nx")
    try:
        raise KeyError("why")
    except KeyError:
        logger.exception("failed")
    opened, failed = map(json.loads, stream.getvalue().splitlines())
    assert opened["event"] == "opened"
    assert (opened["process"], opened["part"], opened["level"]) == ("egress", "registry", "info")
    assert (opened["session"], opened["binding"]) == ("sesn_1", "sbx_1\nx")
    assert opened["timestamp"].endswith("Z")
    assert "KeyError: 'why'" in failed["exception"]
    assert "session" not in failed


def test_text_for_people() -> None:
    stream = io.StringIO()
    log.set_up(level="debug", format="text", process="up", stream=stream)
    log.get("api").debug("request", status=200)
    line = stream.getvalue()
    assert "request" in line
    assert "status=200" in line
    assert "\x1b" not in line


def test_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(process="up")
    log.get("api").info("hello")
    printed = capsys.readouterr()
    assert (printed.out, json.loads(printed.err)["event"]) == ("", "hello")
