"""What a wrong setting gives: one line that says what to do, exit code 2, nothing half-started."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from command_line import handiwork
from control_plane_process import ControlPlane

POLICY = """
name = "work"
[[rules]]
id = "api"
action = "inject"
match = { hosts = ["api.example.com"] }
inject = [{ header = "authorization", value = "Bearer ${secret:nowhere}" }]
"""


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    line = done.stderr.strip()
    assert done.returncode == 2, done
    assert line.count("\n") == 0, line
    assert line.startswith("handiwork: "), line
    for words in said:
        assert words in line


def nothing_runs_on(data: Path) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(data).encode() in command:
                return False
    return True


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[egres]\npolicy = 'x'\n", "egres"),
        ("[sandbox]\nmemory = 1\n", "memory"),
        ("[sandbox]\ntier = 'docker'\n", "use one of namespace"),
        ("[sessions]\nidle_seconds = 'long'\n", "idle_seconds"),
    ],
)
def test_a_wrong_setting(config: str, said: str, tmp_path: Path) -> None:
    assert_refused(handiwork("up", config=config, cwd=tmp_path), said, "handiwork.toml")
    assert not (tmp_path / "data").exists()


def test_an_environment_that_has_no_key_anywhere(tmp_path: Path) -> None:
    done = handiwork("up", config="[[environments]]\nid = 'env_1'\n", cwd=tmp_path)
    assert_refused(done, "environments[env_1]", "key_file", "handiwork.toml", "handiwork init")
    assert nothing_runs_on(tmp_path)


def test_an_environment_key_that_is_not_there(tmp_path: Path) -> None:
    config = "[[environments]]\nid = 'env_01aaaaaaaa'\nkey_file = '/nonexistent/key'\n"
    assert_refused(handiwork("up", config=config, cwd=tmp_path), "/nonexistent/key")
    assert nothing_runs_on(tmp_path)


@pytest.mark.parametrize("which", ["HANDIWORK_API_PORT", "HANDIWORK_LOCAL_BRAIN_PORT"])
def test_a_port_in_use(which: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(handiwork("up", cwd=tmp_path, **{which: port}), port, "in use")
    assert nothing_runs_on(tmp_path)


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    done = handiwork("up", cwd=tmp_path, HANDIWORK_DATA_DIR="/proc/handiwork")
    assert_refused(done, "/proc/handiwork", "data_dir")


def test_a_tier_that_is_not_here(tmp_path: Path) -> None:
    config = "[sandbox]\ntier = 'gvisor'\n[gvisor]\nrunsc = '/no/runsc'\n"
    done = handiwork("up", config=config, cwd=tmp_path)
    assert_refused(done, "gvisor", "namespace", "runsc")
    assert nothing_runs_on(tmp_path)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_a_kernel_without_user_namespaces(tmp_path: Path) -> None:
    """A user namespace whose own limit is zero makes the real kernel refuse."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    prefix = ("unshare", "-Ur", "sh", "-c", script, "sh")
    done = handiwork("up", cwd=tmp_path, prefix=prefix)
    assert_refused(done, "cannot carry sandboxes: userns", "handiwork doctor")
    assert not (tmp_path / "data").exists()


def test_a_verb_without_a_control_plane(tmp_path: Path) -> None:
    assert_refused(handiwork("sandbox", "list", cwd=tmp_path), "handiwork up")


def test_an_invalid_policy_file_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(POLICY.replace("inject =", "injekt ="))
    assert_refused(handiwork("policy", "apply", "bad.toml", cwd=tmp_path), "injekt")


def test_a_policy_file_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(handiwork("policy", "apply", "none.toml", cwd=tmp_path), "none.toml")


def test_against_a_running_control_plane(tmp_path: Path, driven_plane: ControlPlane) -> None:
    data = {"HANDIWORK_DATA_DIR": str(driven_plane.data)}
    (tmp_path / "work.toml").write_text(POLICY)
    applied = handiwork("policy", "apply", "work.toml", cwd=tmp_path, **data)
    assert_refused(applied, "'nowhere'", "handiwork secret set nowhere")
    assert handiwork("policy", "list", "--json", cwd=tmp_path, **data).stdout == "[]\n"
    assert_refused(handiwork("up", cwd=tmp_path, **data), "another handiwork")
    (tmp_path / "key").write_text("hw_wrong")
    url = driven_plane.addresses["api"]
    remote = {"HANDIWORK_CLIENT_URL": url, "HANDIWORK_CLIENT_KEY_FILE": str(tmp_path / "key")}
    assert_refused(handiwork("sandbox", "list", cwd=tmp_path, **remote), "key")
    tier = handiwork("sandbox", "create", "--tier", "docker", cwd=tmp_path, **data)
    assert_refused(tier, "docker")
    policy = handiwork("sandbox", "create", "--policy", "none", cwd=tmp_path, **data)
    assert_refused(policy, "none")
    running = handiwork("sandbox", "list", "--json", cwd=tmp_path, **data)
    assert [box for box in json.loads(running.stdout) if box["state"] != "failed"] == []
