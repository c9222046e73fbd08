"""Where a verb finds its control plane."""

from pathlib import Path

import pytest

from handiwork.cli.invocation import Invocation
from handiwork.model.errors import ConfigError, UnauthorizedError


def test_settings_are_read_once_and_late(tmp_path: Path) -> None:
    invocation = Invocation(tmp_path / "handiwork.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        _ = invocation.settings
    (tmp_path / "handiwork.toml").write_text(f'data_dir = "{tmp_path}/x"\n')
    assert invocation.layout.root == tmp_path / "x"
    (tmp_path / "handiwork.toml").unlink()
    assert invocation.settings is invocation.settings


def test_without_a_control_plane(handiwork) -> None:
    done = handiwork("policy", "list")
    assert (done.code, done.out) == (2, "")
    assert "start one with `handiwork up`" in done.err


def test_a_socket_that_nobody_serves(handiwork, tmp_path: Path) -> None:
    (tmp_path / "api.sock").touch()
    done = handiwork("policy", "list")
    assert done.code == 1
    assert done.err.startswith("handiwork: the control plane at ")
    assert done.err.count("\n") == 1


def test_over_tcp(api, handiwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from api_stand_in import ADMIN_KEY

    monkeypatch.setenv("HANDIWORK_CLIENT_URL", api.served.url)
    done = handiwork("policy", "list", "--json")
    assert (done.code, "client.key_file" in done.err) == (2, True)
    key = tmp_path / "key"
    monkeypatch.setenv("HANDIWORK_CLIENT_KEY_FILE", str(key))
    done = handiwork("policy", "list", "--json")
    assert (done.code, str(key) in done.err) == (2, True)
    key.write_text("hwk_wrong")
    done = handiwork("policy", "list", "--json")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "hwk_wrong" not in done.err
    key.write_text(f"{ADMIN_KEY}\n")
    done = handiwork("policy", "list", "--json")
    assert (done.code, done.out) == (0, "[]\n")


def test_an_error_of_the_api_keeps_its_class(api, tmp_path: Path) -> None:
    (tmp_path / "handiwork.toml").write_text(
        f'[client]\nurl = "{api.served.url}"\nkey_file = "{tmp_path}/key"\n'
    )
    (tmp_path / "key").write_text("hwk_wrong")
    with pytest.raises(UnauthorizedError):
        Invocation(tmp_path / "handiwork.toml").call(lambda client: client.policies.list())
