"""A recipe around mmdebstrap: what it is asked, what is made of its answer."""

import os

import pytest

from handiwork.model.errors import ConfigError, UnsupportedError
from handiwork.model.recipe import Recipe, RecipeFile
from handiwork.sandboxes.images import debian
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.fit import find
from image_archives import directory, entry, tar

SOURCES = "deb http://deb.example/debian bookworm main\n"


@pytest.fixture
def apt(tmp_path):
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "apt/sources.list").write_text(SOURCES)
    return tmp_path / "apt"


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the program: takes down what it is asked, and answers a small tree."""
    calls = []

    async def run_tool(argv, work, *, stdout, network, told):
        calls.append((argv, network, {p.name: p.read_text() for p in work.iterdir()}))
        told("I: installing")
        os.write(stdout, tar(directory("etc"), entry("etc/x", b"1")))

    monkeypatch.setattr(debian, "run_tool", run_tool)
    monkeypatch.setattr(debian, "is_root", lambda: True)
    return calls


async def test_it_asks_for_the_packages_of_the_hosts_sources(asked, apt, tmp_path):
    told = []
    build = Build(tmp_path / "images", lambda *each: told.append(each[0]))
    recipe = Recipe(
        suite="bookworm",
        packages=("git", "jq"),
        files=(RecipeFile(path="/opt/a/b", content="text", mode="0755"),),
        env={"A": "b"},
    )
    made = await debian.from_recipe(recipe, build, apt=apt)
    argv, network, files = asked[0]
    assert argv[-3:-1] == ["bookworm", "-"]
    assert [one for one in argv if one.startswith("--include=")] == [
        *("--include=ca-certificates", "--include=git", "--include=jq")
    ]
    assert (network, files) == (True, {"host.list": SOURCES})
    assert argv[-1].endswith("/debian/host.list")
    node = find(made.root, b"opt/a/b")
    assert (node.content, node.mode, made.found.env) == (b"text", 0o755, {"A": "b"})
    assert "installing" in told
    build.close()


async def test_a_mirror_of_the_settings_is_taken_instead(asked, apt, tmp_path):
    build = Build(tmp_path / "images", lambda *_: None)
    await debian.from_recipe(Recipe(suite="sid"), build, mirror="http://m.example", apt=apt)
    assert asked[0][0][-1] == "http://m.example"
    build.close()


async def test_what_cannot_be_built_is_told(asked, apt, tmp_path, monkeypatch):
    build = Build(tmp_path / "images", lambda *_: None)
    with pytest.raises(UnsupportedError, match=r"no suite 'sid'.*images\.debian_mirror"):
        await debian.from_recipe(Recipe(suite="sid"), build, apt=apt)
    build.close()
    build = Build(tmp_path / "images", lambda *_: None)
    into_file = Recipe(suite="bookworm", files=(RecipeFile(path="/etc/x/y", content=""),))
    with pytest.raises(ConfigError, match="through a file"):
        await debian.from_recipe(into_file, build, apt=apt)
    monkeypatch.setattr(debian, "is_root", lambda: False)
    with pytest.raises(UnsupportedError, match="root only"):
        await debian.from_recipe(Recipe(suite="bookworm"), build, apt=apt)
    build.close()
