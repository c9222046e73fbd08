"""What a guest left in its root for the next start, which is made with more rights than it has."""

import os
import socket
from pathlib import Path

import pytest

from attacks.world import shell, told
from handiwork.model.sandbox import SandboxExit, SandboxSpec
from uppers import upper

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def exit_path():
    path = Path("/tmp") / f"handiwork-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield path
    path.unlink()


@pytest.mark.parametrize(
    "script",
    [
        f"rm -rf /etc/ssl/certs; mkdir -p {BUNDLE}/x",
        f"mkdir -p /etc/ssl/certs; rm -rf {BUNDLE}; mkdir {BUNDLE} {BUNDLE}.0 {BUNDLE}.1; touch {BUNDLE}/x",
        f"mkdir -p /etc/ssl/certs; rm -rf {BUNDLE}; mkfifo {BUNDLE}",
        f"mkdir -p /etc/ssl/certs; rm -rf {BUNDLE}; ln -s /usr/bin/env {BUNDLE}",
        f"mkdir -p /etc/ssl/certs; rm -rf {BUNDLE}; ln -s /dev/zero {BUNDLE}",
        "rm -rf /etc/ssl; ln -s /proc /etc/ssl",
        "rm -rf /etc/ssl; ln -s /usr /etc/ssl",
        "rm -rf /etc/ssl; mkdir /etc/ssl; ln -s certs /etc/ssl/certs",
        "rm -rf /etc; ln -s ../../../../../../etc /etc",
        "rm -rf /etc; touch /etc",
        "rm -rf /workspace /home; ln -s /usr /workspace; ln -s home /home; chmod 0 /",
        "rm -rf /root /workspace; mkfifo /root /workspace; chmod 777 /",
    ],
)
async def test_no_guest_keeps_its_sandbox_from_waking(world, exit_path, script):
    box = await world.sandbox()
    await told(box, shell(script))
    await world.driver.sleep(box.id)
    outside = SandboxExit(socket_path=str(exit_path), ca_certificate="its own")
    woken = await world.driver.restore(SandboxSpec(id=box.id, exit=outside))
    assert (await woken.files.read(BUNDLE)).endswith(b"its own")
    assert (await woken.exec(shell("mount -t tmpfs none /mnt"))).exit_code != 0
    await world.driver.destroy(box.id)
    await world.healthy()


@pytest.mark.root
async def test_ids_stay_apart_though_the_root_directory_was_given_away(world):
    if not world.tier.has_tree:
        pytest.skip(f"the files of the {world.driver.tier} tier are no tree of the host")
    box = await world.sandbox()
    states = world.data_dir / "sandboxes"
    (states / box.id / "meta.json").unlink()  # so that it must be told from the directories
    base = (states / box.id / "work").stat().st_uid
    await told(box, shell("chown 1000:1000 /; chmod 0 /"))
    with upper(states / box.id) as place:
        assert place.stat().st_uid == base + 1000  # the control: it was given away
    await world.driver.sleep(box.id)
    heir = world.tier.make(world.data_dir)
    another = f"sbx_heir{os.getpid():08}"
    await heir.create(SandboxSpec(id=another))
    assert (states / another / "work").stat().st_uid != base
    woken = await heir.restore(SandboxSpec(id=box.id))
    assert await told(woken, shell("stat -c %u / /root")) == ["1000", "0"]
    for name in (box.id, another):
        await heir.destroy(name)
