"""`handiwork policy …`: a file is checked whole, kept, shown, tried and withdrawn."""

import json
from pathlib import Path

import pytest

POLICY = """
name = "web"
description = "docs only"
[[rules]]
id = "docs"
action = "allow"
match = { hosts = ["docs.test"], methods = ["GET"] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "web.toml"
    path.write_text(POLICY)
    return path


def test_its_life(api, handiwork, file: Path) -> None:
    done = handiwork("policy", "apply", str(file))
    assert (done.code, done.out) == (0, "policy web holds now\n")
    (row,) = json.loads(handiwork("policy", "list", "--json").out)
    assert (row["name"], row["version"], row["rules"]) == ("web", 1, 1)
    shown = json.loads(handiwork("policy", "show", "web").out)
    assert shown["rules"][0]["match"]["hosts"] == ["docs.test"]
    assert handiwork("policy", "delete", "web").code == 0
    assert handiwork("policy", "show", "web").code == 2


def test_json_by_its_ending(api, handiwork, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text('{"name": "none", "rules": []}')
    assert handiwork("policy", "apply", str(path)).code == 0


def test_deciding(api, handiwork, file: Path) -> None:
    handiwork("policy", "apply", str(file))
    done = handiwork("policy", "test", "web", "https://docs.test/[x]")
    assert (done.code, done.out) == (0, "GET https://docs.test/[x]: permitted by tenant:web/docs\n")
    done = handiwork("policy", "test", "web", "https://docs.test/", "--method", "POST")
    assert done.code == 3
    assert done.err.startswith("handiwork: POST https://docs.test/: refused by tenant:web/default")
    assert handiwork("policy", "test", "web", "ftp://docs.test/").code == 2
    assert handiwork("policy", "test", "none", "https://docs.test/").code == 2


def test_for_an_agent_whose_tier_and_variables_stay(api, handiwork, typed, file: Path) -> None:
    typed(b"sk-0123456789")
    assert handiwork("secret", "set", "github", "--host", "api.github.com").code == 0
    settings = ["--tier", "namespace", "--variable", "TOKEN=github"]
    assert handiwork("agent", "set", "agent_01aaaaaaaa", *settings).code == 0
    done = handiwork("policy", "apply", str(file), "--agent", "agent_01aaaaaaaa")
    assert done.out == "policy web holds now, for agent agent_01aaaaaaaa\n"
    assert handiwork("policy", "apply", str(file), "--agent", "agent_01bbbbbbbb").code == 0
    rows = {row["agent_id"]: row for row in json.loads(handiwork("agent", "list", "--json").out)}
    assert rows["agent_01aaaaaaaa"]["tier"] == "namespace"
    assert rows["agent_01aaaaaaaa"]["policy"] == "web"
    assert rows["agent_01aaaaaaaa"]["variables"] == {"TOKEN": "github"}
    assert (rows["agent_01bbbbbbbb"]["tier"], rows["agent_01bbbbbbbb"]["policy"]) == ("", "web")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "TOML"),
        (POLICY.replace("allow", "alow").encode(), "alow"),
        (POLICY.replace("methods", "method").encode(), "method"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_asked(
    content: bytes, said: str, handiwork, file: Path
) -> None:
    file.write_bytes(content)
    done = handiwork("policy", "apply", str(file))
    assert done.code == 2
    assert str(file) in done.err
    assert said in done.err


def test_a_secret_that_is_not_set(api, handiwork, file: Path) -> None:
    inject = '\ninject = [{ header = "x-key", value = "${secret:key}" }]\n'
    file.write_text(POLICY.replace('"allow"', '"inject"') + inject)
    done = handiwork("policy", "apply", str(file))
    assert (done.code, "handiwork secret set key" in done.err) == (2, True)
