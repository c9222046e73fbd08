"""What a Dockerfile stands on, and where it may lie."""

import pytest

from handiwork.model.errors import ConfigError, UnsupportedError
from handiwork.sandboxes.images import dockerfile
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.dockerfile import bases, check_steps, from_dockerfile
from image_archives import entry, link, tar


def test_bases_are_those_from_outside():
    text = (
        "FROM scratch\nFROM --platform=x one AS a\nfrom \\\n two as B\nFROM A\nFROM b\nFROM one\n"
    )
    assert bases(text) == ["one", "two"]
    assert bases("# FROM x\nRUN echo FROM y\n") == []


def test_what_is_not_to_be_known_is_refused():
    with pytest.raises(ConfigError, match="variable"):
        bases("ARG B=x\nFROM ${B}\n")
    with pytest.raises(ConfigError, match="more than 16"):
        bases("".join(f"FROM i{n}\n" for n in range(20)))


def with_buildah(folder):
    """A search path on which the program is found; it is not run here."""
    (folder / "buildah").touch(0o755)
    return str(folder)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=bind,source=/,target=/x true",
        "run --MOUNT=type=cache,target=/x true",
        "RUN --mo\\unt=type=bind true",
        'RUN --"mount"=type=bind true',
        "RUN \\\n# comment\n--mount=type=bind true",
        "RUN --mo\\\nunt=type=bind true",
        "RUN --mo\\ \n  # x\n\nunt=type=bind true",
        "RUN --security=insecure true",
        "# escape=`\nRUN --mo`\nunt=type=bind true",
    ],
)
def test_a_step_gets_nothing_but_its_own_tree(line):
    with pytest.raises(ConfigError, match="not served"):
        check_steps(f"FROM base\n{line}\n")


def test_plain_steps_are_taken():
    check_steps("FROM base\n# a --mount in a comment\nRUN mount -o x && tool -m --x\n")


async def none(name):
    raise UnsupportedError(f"no image {name}")


@pytest.mark.parametrize(
    ("members", "name", "said"),
    [
        ([entry("x")], "Dockerfile", "no Dockerfile"),
        ([link("Dockerfile", "/etc/passwd")], "Dockerfile", "plain path"),
        ([link("d", "/etc"), entry("Dockerfile")], "d/passwd", "plain path"),
        ([entry("Dockerfile")], "../Dockerfile", "plain path"),
        ([entry("Dockerfile")], "/etc/passwd", "plain path"),
        ([entry("Dockerfile", b"\xff\xfe")], "Dockerfile", "that is text"),
        ([entry("../x")], "Dockerfile", r"'\.\.'"),
    ],
)
async def test_nothing_leads_out_of_the_context(members, name, said, tmp_path, monkeypatch):
    monkeypatch.setattr(dockerfile, "is_root", lambda: True)
    monkeypatch.setattr(dockerfile, "TOOL_PATH", with_buildah(tmp_path))
    build = Build(tmp_path / "images", lambda *_: None)
    with pytest.raises(ConfigError, match=said):
        await from_dockerfile([tar(*members)], name, build, none, first_id=1)
    build.close()


async def test_it_needs_root_and_the_images_it_names(tmp_path, monkeypatch):
    context = [tar(entry("Dockerfile", b"FROM gone\n"))]
    monkeypatch.setattr(dockerfile, "TOOL_PATH", with_buildah(tmp_path))
    for root, said in ((False, "as root only"), (True, "no image gone")):
        monkeypatch.setattr(dockerfile, "is_root", lambda root=root: root)
        build = Build(tmp_path / "images", lambda *_: None)
        with pytest.raises(UnsupportedError, match=said):
            await from_dockerfile(context, "Dockerfile", build, none, first_id=1)
        build.close()
