"""Sandboxes on images of their own: what is in them, who owns it, what stays as it was."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import ConflictError, UnsupportedError
from handiwork.model.sandbox import ExecRequest, SandboxExit, SandboxSpec
from handiwork.process import is_root
from handiwork.sandboxes import namespace
from handiwork.sandboxes.images import mounted
from handiwork.sandboxes.images.reading import unpack
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.namespace import NamespaceDriver
from image_archives import entry, link
from image_userland import PROGRAMS, userland

SPEC = SandboxSpec(id="sbx_aaaaaaaa", image="mine")
TESTS = Path(__file__).parents[1]


def now():
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def data():
    return userland(link("etc/ssl/certs/ca-certificates.crt", "/etc/shadow"))


async def put(images, data, name="mine"):
    async def make(build):
        return await build.unpack(lambda d, files, told: unpack([data], d, files, progress=told))

    return await images.put(name, make, source="tree", now=now())


@pytest.fixture
async def driver(tmp_path, data):
    images = Images(tmp_path / "images")
    await put(images, data)
    driver = NamespaceDriver(tmp_path, clock=now, images=images)
    yield driver
    for sandbox_id in await driver.leftovers():
        await driver.destroy(sandbox_id)


async def run(box, script, user="root"):
    done = await box.exec(ExecRequest(argv=("sh", "-c", script), user=user))
    assert done.exit_code == 0, done
    return done.stdout.decode()


def digest_of(tree):
    """Tell all of a tree that a sandbox might have changed."""
    return [
        (str(path), status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size)
        for path in sorted(tree.rglob("*"))
        if (status := path.lstat())
    ]


async def test_it_stands_on_its_image_alone(driver):
    box = await driver.create(SPEC)
    assert (await run(box, "ls /usr/bin")).split() == sorted(PROGRAMS)
    assert await run(box, "stat -c '%u:%g %a' /usr/lib/owned /usr") == "1000:1000 640\n0:0 755\n"
    assert await run(box, "cat /etc/resolv.conf; id -u") == (
        "nameserver 127.0.0.1\noptions ndots:0\n0\n"
    )


async def test_what_it_changes_is_its_own_and_survives(driver, tmp_path):
    tree = (await driver._images.resolve("mine")).tree
    before = digest_of(tree)
    box = await driver.create(SPEC)
    await run(box, "echo new > /usr/bin/new; rm /usr/lib/owned; chown 1000 /usr/bin/env")
    await driver.create(SandboxSpec(id="sbx_bbbbbbbb", image="mine"))
    await driver.sleep(SPEC.id)
    box = await driver.restore(SPEC)
    assert await run(box, "cat /usr/bin/new; ls /usr/lib | grep owned || true") == "new\n"
    other = await driver.create(SandboxSpec(id="sbx_cccccccc", image="mine"))
    assert await run(other, "ls /usr/bin/new 2>&1 || true; stat -c %u /usr/bin/env") == (
        "ls: cannot access '/usr/bin/new': No such file or directory\n0\n"
    )
    assert digest_of(tree) == before


async def test_a_woken_sandbox_keeps_its_image_when_the_name_moves_on(driver, data):
    box = await driver.create(SPEC)
    await driver.sleep(SPEC.id)
    moved = await put(driver._images, userland(entry("etc/second", b"2")))
    box = await driver.restore(SPEC)
    assert await run(box, "ls /etc/second 2>/dev/null || echo first") == "first\n"
    await driver.destroy(SPEC.id)
    box = await driver.create(SPEC)
    assert await run(box, "cat /etc/second") == "2"
    with pytest.raises(ConflictError, match=SPEC.id):
        await driver._images.remove(moved.digest)


async def test_an_image_that_is_not_there_is_told_and_leaves_nothing(driver):
    with pytest.raises(UnsupportedError, match="no image 'none'"):
        await driver.create(SandboxSpec(id=SPEC.id, image="none"))
    assert await driver.leftovers() == []


async def test_a_link_of_the_image_never_reads_the_hosts_files(driver, tmp_path):
    """Its bundle is a link to /etc/shadow, which the host has and the image has not."""
    spec = SandboxSpec(
        id=SPEC.id,
        image="mine",
        exit=SandboxExit(socket_path=str(tmp_path / "s"), ca_certificate="OUR CA"),
    )
    (tmp_path / "s").touch()
    box = await driver.create(spec)
    told = await run(box, "cat /etc/ssl/certs/ca-certificates.crt")
    assert told.endswith("OUR CA")
    assert Path("/etc/shadow").read_text().split(":")[0] + ":" not in told


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="needs root: ids are mapped for root alone")
async def test_as_root_it_is_mounted_from_its_one_file(driver, monkeypatch, tmp_path):
    """And from the directory, with the same answer, where the kernel cannot."""
    assert driver.protections()["image_from_one_file"] is mounted.can_mount_files()
    before = Path("/proc/self/mountinfo").read_text()
    box = await driver.create(SPEC)
    image = await driver._images.resolve("mine")
    assert (image.digest in driver._images.mounts._held) is mounted.can_mount_files()
    script = "stat -c '%n %u:%g %a %s' /usr/lib/* /usr/bin/*; stat -c '%n %u %a' /etc/*"
    from_file = await run(box, script)
    assert Path("/proc/self/mountinfo").read_text() == before
    monkeypatch.setattr(namespace, "can_mount_files", lambda: False)
    assert driver.protections()["image_from_one_file"] is False
    other = await driver.create(SandboxSpec(id="sbx_bbbbbbbb", image="mine"))
    assert await run(other, script) == from_file


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="needs root: it gives it up for another user")
def test_rootless_the_image_is_a_directory_of_that_user(data):
    place = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    try:
        place.chmod(0o755)
        (place / "data").mkdir()
        os.chown(place / "data", 65534, 65534)
        (place / "image.tar").write_bytes(data)
        agent = shutil.copy(namespace.DEFAULT_AGENT, place)
        script = "stat -c %u:%g /usr/lib/owned; echo x > /usr/bin/new; rm /usr/lib/owned; ls /usr"
        argv = [sys.executable, TESTS / "rootless_image.py", place / "data", agent]
        done = subprocess.run(
            [*argv, place / "image.tar", script], capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["code"], told["output"], told["uid"]) == (0, "0:0\nbin\nlib\n", 65534), told
    finally:
        shutil.rmtree(place)
