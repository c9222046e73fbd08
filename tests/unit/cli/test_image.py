"""`handiwork image …`: what people and programs see of it."""

import json
from pathlib import Path

from image_archives import Oci, entry, tar


def test_its_life(api, handiwork, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(Oci(tar(entry("etc/told", b"x"))).tar())
    done = handiwork("image", "import", "mine", str(tmp_path / "image.tar"))
    assert (done.code, done.err) == (0, "")
    assert "mine: " in done.out
    shown = json.loads(handiwork("image", "inspect", "mine", "--json").out)
    assert (shown["names"], shown["source"]) == (["mine"], "archive")
    listed = json.loads(handiwork("image", "list", "--json").out)
    assert {name for one in listed for name in one["names"]} == {"host", "mine"}
    assert shown["digest"][:16] in handiwork("image", "list").out
    again = handiwork("image", "import", "also", str(tmp_path / "image.tar"), "--json")
    assert json.loads(again.out)["digest"] == shown["digest"]
    assert handiwork("image", "rm", "mine").code == 0
    assert handiwork("image", "rm", "mine").code == 2
    assert handiwork("image", "rm", "host").code == 1


def test_what_cannot_be_is_one_line(api, handiwork, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('suite = "sid"\nmirror = "x"\n')
    (tmp_path / "bad.tar").write_bytes(tar(entry("../x")))
    for arguments, said in [
        (("build", "mine", str(tmp_path / "bad.toml")), "mirror"),
        (("build", "mine", str(tmp_path / "none.toml")), "cannot be read"),
        (("build", "host"), "this host's own"),
        (("import", "mine", str(tmp_path / "bad.tar")), "'..'"),
    ]:
        done = handiwork("image", *arguments)
        assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done


def test_the_recipe_that_comes_along_is_one() -> None:
    from handiwork.cli.image import _recipe
    from handiwork.model.recipe import parse_recipe

    packages = set(parse_recipe(_recipe("default")).packages)
    assert packages >= {"git", "curl", "python3-venv", "nodejs", "build-essential", "ripgrep", "jq"}


def test_a_registrys_password_is_read_and_not_shown(api, handiwork, typed) -> None:
    typed(b"pass-0123456789\n")
    done = handiwork("image", "login", "r.example.org", "me")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert handiwork("image", "logout", "r.example.org").code == 0
    done = handiwork("image", "pull", "mine", "debian:12")
    assert (done.code, "HOST/PATH" in done.err) == (2, True)
