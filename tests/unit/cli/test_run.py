"""`handiwork run`: a turn of an agent at a brain that runs, told as it happens."""

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from brain_process import TOOLSET, BrainProcess, script


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


@pytest.fixture
def by_key(tmp_path: Path) -> tuple[str, str]:
    """The option that has the brain spoken to directly."""
    return ("--key-file", str(tmp_path / "local-brain-api-key"))


@pytest.fixture
def served(brain: BrainProcess, tmp_path: Path) -> None:
    """What a control plane tells of the brain in its data directory."""
    addresses = {"api": "", "local_brain": brain.base_url, "environment_id": brain.environment_id}
    (tmp_path / "addresses.json").write_text(json.dumps(addresses))
    (tmp_path / "local-brain-api-key").write_text(f"{brain.api_key}\n")


def make_agent(brain: BrainProcess, *steps: dict[str, object]) -> str:
    with anthropic.Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(
            name="a", model="scripted", system=script(*steps), tools=[TOOLSET]
        )
    return agent.id


@pytest.mark.usefixtures("served")
def test_a_turn_is_told(brain: BrainProcess, by_key, handiwork) -> None:
    agent = make_agent(brain, {"say": "you said [b]${text}[/b]"})
    done = handiwork("run", "look \x1b[2J here", "--agent", agent, *by_key)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("session sesn_")
    assert lines[1] == "you said [b]look \ufffd[2J here[/b]"


@pytest.mark.usefixtures("served")
def test_a_turn_that_fails(brain: BrainProcess, by_key, handiwork) -> None:
    agent = make_agent(brain, {"fail": "out of ideas"})
    done = handiwork("run", "go", "--agent", agent, *by_key)
    assert done.code == 1
    assert "the turn ended with" in done.out


@pytest.mark.usefixtures("served")
def test_an_agent_that_is_not_there(by_key, handiwork) -> None:
    done = handiwork("run", "go", "--agent", "agent_01aaaaaaaaaaaaaaaaaaaaaa", *by_key)
    assert done.code == 2
    assert done.err.count("\n") == 1


@pytest.mark.usefixtures("served")
def test_keys(brain: BrainProcess, handiwork, tmp_path: Path) -> None:
    agent = make_agent(brain, {"say": "hello"})
    (tmp_path / "key").write_text("wrong")
    done = handiwork("run", "go", "--agent", agent, "--key-file", str(tmp_path / "key"))
    assert (done.code, "API key" in done.err) == (2, True)
    done = handiwork("run", "go", "--agent", agent, "--key-file", str(tmp_path / "none"))
    assert (done.code, str(tmp_path / "none") in done.err) == (2, True)


def test_without_a_control_plane(handiwork, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    done = handiwork("run", "go", "--agent", "agent_1", "--key-file", str(tmp_path / "key"))
    assert (done.code, "handiwork up" in done.err) == (2, True)


@pytest.mark.usefixtures("served")
def test_a_brain_elsewhere_needs_its_own_key(handiwork, tmp_path: Path) -> None:
    config = tmp_path / "handiwork.toml"
    config.write_text('[[environments]]\nid = "env_1"\nkey_file = "/none"\n')
    arguments = ("run", "go", "--agent", "agent_1", "--environment", "env_1")
    done = handiwork("--config", str(config), *arguments)
    assert (done.code, "--key-file" in done.err) == (2, True)


@pytest.mark.usefixtures("served")
def test_a_brain_that_is_gone(by_key, handiwork, tmp_path: Path) -> None:
    addresses = {"local_brain": "http://127.0.0.1:9", "environment_id": "env_1"}
    (tmp_path / "addresses.json").write_text(json.dumps(addresses))
    done = handiwork("run", "go", "--agent", "agent_1", *by_key)
    assert (done.code, "cannot be reached" in done.err) == (1, True)


@pytest.mark.parametrize(
    "option",
    [
        ("--tier", "gvisor"),
        ("--policy", "strict"),
        ("--timeout", "5"),
        ("--json",),
        ("--base-url", "http://127.0.0.1:9"),
    ],
)
def test_what_would_not_be_done_is_refused(option, by_key, handiwork) -> None:
    done = handiwork("run", "go", "--agent", "agent_1", *by_key, *option)
    assert (done.code, f"{option[0]} does not go with" in done.err) == (2, True)


def test_a_task_that_is_no_text(handiwork) -> None:
    done = handiwork("run", "go \udcff", "--model", "scripted")
    assert (done.code, done.err) == (2, "handiwork: the task is not valid UTF-8\n")
