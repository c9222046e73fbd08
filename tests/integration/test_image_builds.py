"""Images built by the real programs: a Dockerfile by buildah, a recipe by mmdebstrap."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane_process import ControlPlane
from handiwork import Handiwork
from handiwork.model.errors import UnsupportedError
from handiwork.model.recipe import Recipe
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes.images.debian import from_recipe
from handiwork.sandboxes.images.dockerfile import from_dockerfile
from handiwork.sandboxes.images.reading import unpack
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.namespace import NamespaceDriver
from image_archives import entry, tar
from image_userland import userland

FIRST_ID = (1 << 30) - 65_536
DOCKERFILE = b"""FROM base AS first
COPY x /opt/x
RUN cat /proc/self/uid_map > /opt/map; grep -c . /proc/net/dev > /opt/network; touch /opt/gone
FROM first
RUN rm /opt/gone && chown 5:6 /opt/x
ENV LEVEL=3
"""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="needs root: images are built as root only"),
    pytest.mark.timeout(600),
]


def now():
    return datetime.now(UTC)


def living(mark):
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                found.append((one / "cmdline").read_text())
            except OSError:
                continue
    return [line for line in found if mark in line]


async def put(images, name, make):
    return await images.put(name, make, source="test", now=now())


async def put_base(images):
    data = userland()

    async def make(build):
        return await build.unpack(lambda d, files, told: unpack([data], d, files))

    await put(images, "base", make)


async def put_dockerfile(images, text):
    context = [tar(entry("Dockerfile", text), entry("x", b"copied"))]

    async def make(build):
        return await from_dockerfile(
            context, "Dockerfile", build, images.resolve, first_id=FIRST_ID
        )

    return await put(images, "built", make)


@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
async def test_a_dockerfile(tmp_path):
    images = Images(tmp_path / "images")
    await put_base(images)
    info = await put_dockerfile(images, DOCKERFILE)
    assert info.env["LEVEL"] == "3"
    tree = (await images.resolve("built")).tree
    assert (tree / "opt/x").read_text() == "copied"
    assert ((tree / "opt/x").stat().st_uid, (tree / "opt/x").stat().st_gid) == (5, 6)
    assert (tree / "opt/map").read_text().split() == ["0", str(FIRST_ID), "65536"]
    assert (tree / "opt/network").read_text() == "3\n"  # two lines of head, and loopback
    assert not (tree / "opt/gone").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert {p.name for p in (tmp_path / "images").iterdir()} == {
        "names.json",
        *(one.digest for one in images.list()),
    }
    driver = NamespaceDriver(tmp_path, clock=now, images=images)
    box = await driver.create(SandboxSpec(id="sbx_aaaaaaaa", image="built"))
    done = await box.exec(ExecRequest(argv=("sh", "-c", "echo $LEVEL; cat /opt/x")))
    assert done.stdout == b"3\ncopied", done
    await driver.destroy("sbx_aaaaaaaa")


@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
async def test_a_control_plane_has_the_rights_to_build_one(
    driven_plane: ControlPlane, tmp_path: Path
) -> None:
    archive, context = tmp_path / "base.tar", tmp_path / "context"
    archive.write_bytes(userland())
    context.mkdir()
    (context / "Dockerfile").write_bytes(DOCKERFILE)
    (context / "x").write_text("copied")
    async with Handiwork(socket=driven_plane.socket) as hw:
        await hw.images.import_archive("base", archive)
        info = await hw.images.build_dockerfile("built", context)
    assert info.env["LEVEL"] == "3"


@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
async def test_a_step_that_fails_is_told_and_leaves_nothing(tmp_path):
    images = Images(tmp_path / "images")
    await put_base(images)
    before = {p.name for p in (tmp_path / "images").iterdir()}
    with pytest.raises(UnsupportedError, match="no-such-command"):
        await put_dockerfile(images, b"FROM base\nRUN no-such-command\n")
    with pytest.raises(UnsupportedError, match="no image 'elsewhere"):
        await put_dockerfile(images, b"FROM elsewhere.example/image\n")
    assert {p.name for p in (tmp_path / "images").iterdir()} == before
    assert not living(str(tmp_path))


@pytest.mark.slow
async def test_a_recipe_and_apt_inside(tmp_path):
    images = Images(tmp_path / "images")
    recipe = Recipe(suite="bookworm", packages=("jq",))

    async def make(build):
        return await from_recipe(recipe, build)

    info = await put(images, "debian", make)
    assert info.entries > 5000
    driver = NamespaceDriver(tmp_path, clock=now, images=images)
    box = await driver.create(SandboxSpec(id="sbx_aaaaaaaa", image="debian"))
    script = (
        "jq -n '1+1' && apt-get -q --yes purge jq >/dev/null && ! test -e /usr/bin/jq"
        " && useradd -m person && su person -c id && dpkg --audit && stat -c %U /var/mail"
    )
    done = await box.exec(ExecRequest(argv=("sh", "-c", script)))
    assert done.exit_code == 0, done
    assert done.stdout.startswith(b"2\nuid=1000(person)")
    await driver.destroy("sbx_aaaaaaaa")
