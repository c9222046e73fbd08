"""One sandbox against another, and against what the host keeps of it."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from attacks.world import held, python, shell, told
from handiwork.model.sandbox import SandboxSpec
from uppers import upper

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHARED = """
import ctypes, socket
listener = socket.socket(socket.AF_UNIX); listener.bind("\\0attack"); listener.listen()
libc = ctypes.CDLL(None)
print(*[libc.shmget(4711, 4096, 0o1666), libc.msgget(4712, 0o1666), libc.semget(4713, 1, 0o1666)], end="")
"""
LOOK = """
import ctypes, socket
libc = ctypes.CDLL(None)
try: socket.socket(socket.AF_UNIX).connect("\\0attack"); print("seen", end=" ")
except ConnectionRefusedError: print("none", end=" ")
for found in (libc.shmget(4711, 0, 0), libc.msgget(4712, 0), libc.semget(4713, 0, 0)):
    print("seen" if found >= 0 else "none", end=" ")
"""


def outside(script):
    """Run a script on the host, as root; returns its words."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


async def test_abstract_sockets_and_queues_are_the_sandboxs_own(world):
    process, _ = await held(world.attacker, SHARED)
    assert await told(world.attacker, python(LOOK)) == ["seen"] * 4  # the control
    assert await told(world.neighbour, python(LOOK)) == ["none"] * 4
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect("\0attack")
    await process.signal(9)


async def test_sockets_of_the_host_are_not_reached(world, tmp_path_factory):
    """By name, by path, and through whatever directory of the host is seen inside."""
    place = tmp_path_factory.mktemp("s") / "socket"
    name = f"attack-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        by_path.bind(str(place))
        by_name.bind(f"\0{name}")
        for one in (by_path, by_name):
            one.listen()
        script = f"""
import socket
listener = socket.socket(socket.AF_UNIX); listener.bind("\\0mine"); listener.listen()
for address in ("\\0mine", "\\0{name}", "{place}", "/proc/1/root{place}", "/run/dbus/system_bus_socket",
                "/var/run/docker.sock", "/run/systemd/private", "/dev/log"):
    try: socket.socket(socket.AF_UNIX).connect(address); print("reached")
    except OSError: print("none")
"""
        assert outside(script)[:3] == ["reached"] * 3  # the control
        assert await told(world.attacker, python(script)) == ["reached"] + ["none"] * 7


async def test_nothing_inside_tells_a_place_of_the_host(world, tmp_path_factory):
    """The control: the same look finds what is the sandbox's own."""
    script = """
import os, sys
texts = []
for where in ("/proc/self", "/proc/1", "/proc/self/net"):
    for name in os.listdir(where):
        try: texts.append(open(os.path.join(where, name), "rb").read(1 << 20))
        except OSError: pass
for wanted in sys.stdin.read().split(): print(any(wanted.encode() in text for text in texts))
"""
    places = f"/workspace overlay {world.data_dir} {tmp_path_factory.getbasetemp()}"
    own = await told(world.attacker, python(script, stdin=places.encode()))
    assert own == ["False", "True", "False", "False"]


@pytest.mark.root
async def test_the_ids_of_one_open_nothing_of_another(world):
    """As whoever escapes with the ids of its sandbox would find it. The control: root reads it."""
    if not world.tier.has_tree:
        pytest.skip(f"the files of the {world.driver.tier} tier are no tree of the host")
    states = world.driver._states
    mine, other = (states.path(one.id) for one in (world.attacker, world.neighbour))
    base = (mine / "work").stat().st_uid
    with upper(other) as place:
        assert (place / "workspace/mine").read_bytes() == b"mine\n"
        target = other / ("disk.img" if (other / "disk.img").exists() else "upper/workspace/mine")
    script = f"""
import os
os.setgroups([]); os.setresgid({base}, {base}, {base}); os.setresuid({base}, {base}, {base})
for path in {[str(target), str(other), str(mine.parent), str(mine.parent.parent)]!r}:
    try: os.open(path, os.O_RDONLY); print("opened")
    except PermissionError: print("refused")
"""
    assert outside(script)[:3] == ["refused"] * 3


@pytest.mark.root
async def test_overlay_attributes_mean_nothing_to_the_host(world):
    if not world.tier.has_tree:
        pytest.skip(f"the files of the {world.driver.tier} tier are no tree of the host")
    script = """
import os
os.makedirs("/workspace/d", exist_ok=True)
for name in ("user.plain", "user.overlay.redirect", "user.overlay.opaque", "trusted.overlay.redirect"):
    try: os.setxattr("/workspace/d", name, b"/../..")
    except OSError: pass
try: os.mknod("/workspace/whiteout", 0o20666, 0)
except OSError: print("refused")
"""
    assert await told(world.attacker, python(script)) == ["refused"]
    with upper(world.driver._states.path(world.attacker.id)) as place:
        names = os.listxattr(place / "workspace/d")
    assert "user.plain" in names or not world.tier.shares_kernel  # whose kernel may keep none
    assert not {"user.overlay.redirect", "user.overlay.opaque"} & set(names)


async def test_four_sandboxes_of_one_id_are_one(world):
    name = f"sbx_same{os.getpid():08}"
    made = await asyncio.gather(
        *(world.driver.create(SandboxSpec(id=name)) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(one, BaseException) for one in made) == 1
    assert {type(one).__name__ for one in made if isinstance(one, BaseException)} == {
        "ConflictError"
    }
    await asyncio.gather(
        *(world.driver.sleep(name), world.driver.destroy(name), world.driver.destroy(name)),
        return_exceptions=True,
    )
    assert name not in await world.driver.leftovers()
    await world.healthy()


async def test_an_id_that_is_a_path_makes_nothing(world):
    """Ids come from callers: they name a directory of the host."""
    before = sorted(world.data_dir.rglob("*sbx*"))
    for name in (
        "../sbx_outside00",
        "sbx_/../../../x",
        "/etc/sbx",
        "",
        "sbx_a\0bcdefgh",
        "sbx_" + "x" * 300,
    ):
        with pytest.raises(Exception, match="id"):
            await world.driver.create(SandboxSpec(id=name))
    assert sorted(world.data_dir.rglob("*sbx*")) == before
    await told(world.attacker, shell("true"))
