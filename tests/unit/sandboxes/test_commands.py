"""Users, environment, paths and limits, as they go into frames."""

import errno

import pytest

from handiwork.model.errors import ConfigError, GuestError
from handiwork.model.sandbox import ExecRequest, FileKind
from handiwork.sandboxes import commands, frames


@pytest.mark.parametrize(
    ("user", "wanted"),
    [("root", (0, 0)), ("nobody", (65534, 65534)), ("1000", (1000, 1000)), ("7:8", (7, 8))],
)
def test_users(user, wanted):
    assert commands.parse_user(user) == wanted


@pytest.mark.parametrize("user", ["", "daemon", "65536", "-1", "1:", "1:65536", "1 ", "१"])
def test_other_users_are_refused(user):
    with pytest.raises(GuestError) as caught:
        commands.parse_user(user)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_", "", "A=B", "1A", "A-B", "A\n"])
def test_environment_names_that_may_not_be(name):
    with pytest.raises(ConfigError):
        commands.check_env({name: "x"})
    with pytest.raises(ConfigError):
        commands.exec_frame(ExecRequest(argv=("x",), env={name: "x"}), {}, stdin=False)


def test_a_request_goes_over_the_sandbox_and_its_defaults():
    request = ExecRequest(argv=("a", "b"), env={"LANG": "C"}, user="5:6", timeout_seconds=0.0001)
    frame = commands.exec_frame(request, commands.DEFAULT_ENV, stdin=True)
    assert (frame.uid, frame.gid, frame.timeout_ms, frame.flags) == (5, 6, 1, frames.EXEC_STDIN)
    assert b"LANG=C" in frame.env
    assert b"LANG=C.UTF-8" not in frame.env
    assert b"NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt" in frame.env


def test_timeouts_in_milliseconds():
    assert commands.timeout_ms(None) == 0
    assert commands.timeout_ms(0) == 1
    assert commands.timeout_ms(1.0001) == 1001
    assert commands.timeout_ms(1e12) == 0xFFFFFFFF


@pytest.mark.parametrize("path", ["", "a", "../a", "/" + "x" * 5000, "/a\0b"])
def test_paths_that_are_refused(path):
    with pytest.raises(GuestError):
        commands.path_bytes(path)


def test_an_empty_command_is_refused():
    with pytest.raises(GuestError):
        commands.exec_frame(ExecRequest(argv=()), {}, stdin=False)


def test_names_that_are_no_text_come_back_the_same():
    assert commands.guest_bytes(commands.guest_text(b"/\xff\xc3\xa4")) == b"/\xff\xc3\xa4"


def test_an_unknown_kind_is_other():
    found = frames.Info(99, 0o100644, 1, 2, 3, 4)
    info = commands.file_info("x", found)
    assert (info.kind, info.mode) == (FileKind.OTHER, 0o644)
