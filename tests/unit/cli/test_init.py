"""The pieces of `handiwork init`; `tests/integration/test_init.py` has it whole."""

from pathlib import Path

import pytest

from handiwork import config
from handiwork.brains.environment_check import Proven
from handiwork.cli import init
from handiwork.model.errors import ConfigError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    text = init._settings("env_1", "https://brain.test:8443/base", tmp_path / 'odd "name"')
    (tmp_path / "handiwork.toml").write_text(text)
    settings = config.load(tmp_path / "handiwork.toml", {})
    (environment,) = settings.environments
    assert (environment.id, environment.base_url, environment.key_file) == (
        "env_1",
        "https://brain.test:8443/base",
        "",
    )
    assert settings.data_dir == str(tmp_path / 'odd "name"')
    (tmp_path / "plain.toml").write_text(init._settings("env_1", init.DEFAULT_URL, None))
    assert config.load(tmp_path / "plain.toml", {}).data_dir == ""


def test_every_line_that_is_commented_out_is_a_setting(tmp_path: Path) -> None:
    lines = init._settings("env_1", init.DEFAULT_URL, None).splitlines()
    kept = [line for line in lines if not line.startswith("# ") or "=" in line or "[" in line]
    text = "\n".join(line.removeprefix("# ") for line in kept)
    (tmp_path / "all.toml").write_text(text)
    settings = config.load(tmp_path / "all.toml", {})
    assert settings.environments[0].key_file == "/etc/handiwork/environment-key"
    assert settings.environments[0].policy == "work"
    assert settings.webhooks.key_files == ("/etc/handiwork/webhook-keys",)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "brain.test",
        "ftp://brain.test",
        "https://",
        "https://user:pw@brain.test",
        "https://brain.test?key=1",
        "https://brain.test#a",
        "https://brain.test:0",
        "https://brain.test:x",
        'https://brain.test"',
        "https://brain.test\n",
        "https://[::1",
        "https://bräin.test",
    ],
)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ConfigError, match="base URL"):
        init._check_url(url)


def test_a_file_that_came_in_between_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "handiwork.toml"
    init._write(path, "one", force=False)
    with pytest.raises(ConfigError, match="exists"):
        init._write(path, "two", force=False)
    assert path.read_text() == "one"
    init._write(path, "three", force=True)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["three"]
    with pytest.raises(ConfigError, match="cannot be written"):
        init._write(tmp_path / "none" / "a.toml", "x", force=False)


def test_what_is_said_of_a_queue() -> None:
    silent = Proven(depth=None, pending=None, oldest_queued_at=None, workers_polling=None)
    assert "does not say" in init._queue(silent)
    full = Proven(depth=3, pending=1, oldest_queued_at="2026-01-01T00:00:00Z", workers_polling=2)
    assert init._queue(full) == (
        "its queue: 3 waiting, 1 handed out, the oldest since 2026-01-01T00:00:00Z;"
        " 2 others poll it"
    )


def test_without_a_terminal_nothing_is_asked(handiwork, typed, tmp_path: Path) -> None:
    typed(b"key")
    done = handiwork("init", "--output", str(tmp_path / "h.toml"))
    assert (done.code, "give --environment" in done.err) == (2, True)
    typed(b"\xff\xfe")
    done = handiwork("init", "--environment", "env_1", "--output", str(tmp_path / "h.toml"))
    assert (done.code, "printable" in done.err) == (2, True)
    typed(b"key")
    done = handiwork("init", "--environment", "env 1", "--output", str(tmp_path / "h.toml"))
    assert (done.code, "no environment id" in done.err) == (2, True)
    (tmp_path / "hook").write_text("nothing of the kind")
    (tmp_path / "hook").chmod(0o600)
    hook = ("--webhook-key-file", str(tmp_path / "hook"))
    typed(b"key")
    done = handiwork("init", "--environment", "env_1", *hook, "--output", str(tmp_path / "h.toml"))
    assert (done.code, "webhook key" in done.err) == (2, True)
    assert not (tmp_path / "h.toml").exists()
