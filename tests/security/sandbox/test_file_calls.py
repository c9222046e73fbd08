"""The host's calls about files, while the guest chooses what the paths lead to."""

import asyncio
import errno
import os
import tarfile

import msgspec
import pytest

from attacks.world import python, shell, told
from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileKind
from handiwork.sandboxes.tree_filter import END
from handiwork.sandboxes.tree_streams import pack, unpack
from image_archives import entry, tar
from uppers import upper

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"of the host, and of nobody inside"
ROUNDS = 60
CALL_SECONDS = 30


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A file of the host that its root reads; nothing of that path is inside."""
    path = tmp_path_factory.mktemp("host") / "secret"
    path.write_bytes(SECRET)
    return path


async def answered(awaitable):
    """Return what a call about a file gave, or the number of its error; it must come to an end."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await awaitable
    except GuestError as error:
        return error.errno


async def all_calls(files, path):
    """Make each call that looks, and return what they gave as one text."""
    calls = (files.read(path), files.list(path, limit=50), files.stat(path), files.realpath(path))
    return repr([await answered(one) for one in calls])


PATHS = (
    *(
        "",
        ".",
        "..",
        "relative",
        "/..",
        "/../../../../..",
        "//",
        "/.",
        "/workspace/.",
        "/workspace/..",
    ),
    *("/proc/self/root", "/proc/self/cwd/..", "/proc/1/root", "/proc/self/fd", "/proc/self/fd/3"),
    *(
        "/proc/thread-self/root/../..",
        "/dev/fd/3",
        "/dev/stdin",
        "/dev/tty",
        "/dev/full",
        "/dev/ptmx",
    ),
    *(
        "/workspace/a\0b",
        "\0",
        "/workspace/\udcff\udcfe",
        "/workspace/\n",
        "/workspace/ ",
        "/" + "x" * 256,
    ),
    *("/" + "x" * 5000, "/" + "a/" * 2100, "/workspace/" + "../" * 1500, "/proc/self/mem"),
)


async def test_no_spelling_of_a_path_leads_out(world, secret):
    """The control: a file inside is read by the same calls."""
    files = world.attacker.files
    await files.write("/workspace/inside", b"inside")
    assert "inside" in await all_calls(files, "/workspace/../workspace//./inside")
    for path in (*PATHS, *(f"{one}{secret}" for one in PATHS)):
        seen = await all_calls(files, path)
        assert SECRET.decode() not in seen, path
        assert f"'{secret.name}'" not in seen or path.endswith(secret.name), path
    assert await told(world.attacker, shell("echo alive")) == ["alive"]
    await world.healthy()


async def test_no_spelling_of_a_path_writes_outside(world, secret):
    files = world.attacker.files
    for path in (f"{one}{secret}" for one in PATHS):
        calls = (
            files.write(path, b"changed"),
            files.mkdir(f"{path}.made"),
            files.move("/workspace/inside", path),
            files.remove(path, recursive=True),
        )
        for one in calls:
            await answered(one)
        assert secret.read_bytes() == SECRET, path
        assert [one.name for one in secret.parent.iterdir()] == [secret.name], path
    await world.healthy()


async def test_links_lead_to_the_guests_own_files_only(world, secret):
    box = world.attacker
    script = f"""
rm -rf /workspace/l; mkdir /workspace/l; cd /workspace/l
ln -s {secret} absolute; ln -s {secret.parent} directory; ln -s ../../../../../../../..{secret} up
ln -s /proc/self/root{secret} magic; ln -s /proc/1/root{secret} first; ln -s one two; ln -s two one
"""
    await told(box, shell(script))
    for name in ("absolute", "up", "magic", "first", f"directory/{secret.name}", "one"):
        path = f"/workspace/l/{name}"
        assert SECRET.decode() not in await all_calls(box.files, path)
        await answered(box.files.write(path, b"changed"))
        assert secret.read_bytes() == SECRET
    await world.healthy()


async def packed(box, path, **limits):
    """A tree as a tar, or the number of the error."""

    async def take():
        return b"".join([one async for one in pack(box, path, **limits) if isinstance(one, bytes)])

    return await answered(take())


async def once(data):
    yield data


async def test_trees_are_of_the_guests_own_files_only(world, secret):
    """Whatever it links; the control is a file inside, by way of such a link."""
    box = world.attacker
    await told(
        box,
        shell(
            f"rm -rf /workspace/t; mkdir -p /workspace/t; cd /workspace/t; ln -s {secret} file;"
            f" ln -s {secret.parent} directory; ln -s / top; mkdir -p /etc/own; echo mine >/etc/own/f"
        ),
    )
    for path in ("t", "t/file", "t/directory", f"t/top{secret}", f"t/directory/{secret.name}"):
        seen = await packed(box, f"/workspace/{path}")
        assert seen in (errno.ENOENT, errno.EINVAL) or SECRET not in seen, path
        data = tar(entry("made", b"changed"), entry(secret.name, b"changed"))
        await answered(unpack(box, f"/workspace/{path}", once(data)))
        assert secret.read_bytes() == SECRET, path
        assert [one.name for one in secret.parent.iterdir()] == [secret.name], path
    assert b"mine" in await packed(box, "/workspace/t/top/etc/own")
    await world.healthy()


async def test_a_tar_that_lies_is_refused(world):
    """The sandbox's own programs may be others by now: a PATH of its own leads to this one."""
    box = world.attacker
    lies = tar(entry("../out", b"x")), tar(entry("n", kind=tarfile.CHRTYPE)), b"x" * 4096
    for number, lie in enumerate(lies):
        await box.files.write(f"/workspace/lie{number}", lie)
    for number, expected in enumerate((errno.EBADMSG, END, errno.EBADMSG)):
        request = f"#!/bin/sh\ncat /workspace/lie{number}\n".encode()
        await box.files.write("/workspace/bin/tar", request, mode=0o755)
        assert await packed(Elsewhere(box), "/workspace/bin") == expected
    flood = b"#!/bin/sh\ncat /workspace/lie1 | head -c 1000\nexec cat /dev/zero\n"
    await box.files.write("/workspace/bin/tar", flood, mode=0o755)
    await answered(packed(Elsewhere(box), "/workspace/bin", most_bytes=50_000_000))
    assert await told(box, shell("grep -l '^cat$' /proc/[0-9]*/comm; echo none-left")) == [
        "none-left"
    ]
    await world.healthy()


class Elsewhere:
    """The same sandbox, whose programs are looked for in a directory of the guest's."""

    languages = ()

    def __init__(self, box):
        self.files = box.files
        self._box = box

    async def start(self, request, *, stdin=False):
        env = {**request.env, "PATH": "/workspace/bin:/usr/bin:/bin"}
        return await self._box.start(msgspec.structs.replace(request, env=env), stdin=stdin)


@pytest.mark.root
async def test_the_host_itself_would_follow_these_links(world, secret):
    """The control: who opens a guest's tree by path is led to the host's file."""
    if not world.tier.has_tree:
        pytest.skip(f"the files of the {world.driver.tier} tier are no tree of the host")
    await told(world.attacker, shell(f"ln -sfn {secret} /workspace/out"))
    with upper(world.driver._states.path(world.attacker.id)) as place:
        assert (place / "workspace/out").read_bytes() == SECRET
    assert await answered(world.attacker.files.read("/workspace/out")) != SECRET


SWAPS = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
os.makedirs("/workspace/race", exist_ok=True); os.chdir("/workspace/race")
os.makedirs("real/sub", exist_ok=True); open("real/sub/file", "w").write("mine")
os.symlink(sys.argv[1] if len(sys.argv) > 1 else PLACE, "link")
print(flush=True)
while True: libc.renameat2(-100, b"real", -100, b"link", 2)  # RENAME_EXCHANGE
"""


async def swapping(box, place):
    """Start the guest that exchanges a directory and a link to `place` as fast as it can."""
    await box.exec(shell("rm -rf /workspace/race"))
    process = await box.start(python(SWAPS.replace("PLACE", repr(str(place)))))
    async for _ in process.output():
        break
    return process


async def test_a_directory_exchanged_for_a_link_shows_nothing_of_the_host(world, secret):
    box = world.attacker
    process = await swapping(box, secret.parent)
    own = 0
    for number in range(ROUNDS):
        seen = await answered(box.files.read("/workspace/race/real/sub/file"))
        assert seen in (b"mine", 2, 20, 40), seen
        own += seen == b"mine"
        await answered(box.files.write(f"/workspace/race/real/{secret.name}", b"%d" % number))
        assert secret.read_bytes() == SECRET
    await process.signal(9)
    assert own, "the control: the directory was never there"
    await world.healthy()


async def test_removing_what_is_exchanged_follows_no_link(world):
    """The link leads to another directory of the guest, which must stay as it is."""
    box = world.attacker
    await told(
        box,
        shell(
            "rm -rf /workspace/kept; mkdir -p /workspace/kept/sub; touch /workspace/kept/sub/file"
        ),
    )
    process = await swapping(box, "/workspace/kept")
    removed = 0
    for _ in range(ROUNDS):
        removed += await answered(box.files.remove("/workspace/race/real", recursive=True)) is None
        await answered(box.files.mkdir("/workspace/race/real/sub"))
        await answered(box.files.write("/workspace/race/real/sub/file", b"mine"))
    await process.signal(9)
    assert removed, "the control: nothing was removed"
    assert (await box.files.stat("/workspace/kept/sub/file")).kind is FileKind.FILE
    await world.healthy()


KINDS = """
import os, socket
os.makedirs("/workspace/kinds", exist_ok=True); os.chdir("/workspace/kinds")
for name in os.listdir(): os.unlink(name)
os.mkfifo("fifo"); socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("/dev/zero", "zero"); os.symlink("/dev/tty", "terminal"); os.symlink("/proc/self/fd/3", "channel")
os.symlink("/proc/kmsg", "log"); os.symlink("fifo", "to-fifo"); os.symlink("/dev/full", "full")
"""
NAMES = ("fifo", "socket", "zero", "terminal", "channel", "to-fifo", "full")


async def test_what_is_no_file_is_never_waited_for(world):
    box = world.attacker
    await told(box, python(KINDS))
    for name in NAMES:
        number = await answered(box.files.read(f"/workspace/kinds/{name}"))
        assert isinstance(number, int), (name, number)
    await answered(box.files.read("/workspace/kinds/log"))
    for name in NAMES:  # a write replaces it
        await box.files.write(f"/workspace/kinds/{name}", b"a file")
        assert await box.files.read(f"/workspace/kinds/{name}") == b"a file"
    await world.healthy()


async def test_a_file_exchanged_for_a_pipe_is_never_waited_for(world):
    box = world.attacker
    script = SWAPS.replace('"real/sub"', '"real"').replace(
        'open("real/sub/file", "w").write("mine")',
        'os.rmdir("real"); open("real", "w").write("mine")',
    )
    script = script.replace(
        "os.symlink(sys.argv[1] if len(sys.argv) > 1 else PLACE", "(lambda _, to: os.mkfifo(to))(0"
    )
    await box.exec(shell("rm -rf /workspace/race"))
    process = await box.start(python(script))
    async for _ in process.output():
        break
    seen = [await answered(box.files.read("/workspace/race/real")) for _ in range(ROUNDS)]
    await process.signal(9)
    assert set(seen) <= {b"mine", 22, 29, 6}, set(seen)
    assert b"mine" in seen, "the control: the file was never there"
    await world.healthy()


async def test_a_write_parts_what_was_hard_linked(world):
    box = world.attacker
    await told(box, shell("cd /workspace; rm -f a b; echo first >a; ln a b"))
    await box.files.write("/workspace/a", b"second")
    assert await box.files.read("/workspace/b") == b"first\n"
    refused = await told(
        box,
        python(
            "import os\ntry: os.link('/usr/bin/env', '/workspace/env')\nexcept OSError as e: print(e.errno)"
        ),
    )
    # Another file system, or the guest's own copy of the file.
    assert refused == ["18"] or not world.tier.shares_kernel


async def test_names_of_any_bytes_are_listed(world):
    box = world.attacker
    script = """
import os
os.makedirs("/workspace/names", exist_ok=True)
for name in (b"\\xff\\xfe", b"a\\nb", b"\\x1b[2J", b"x" * 255, b" ", b"-rf", b"..."):
    open(b"/workspace/names/" + name, "w").close()
"""
    await told(box, python(script))
    found = await box.files.list("/workspace/names")
    assert {os.fsencode(one.name) for one in found} == {
        *(b"\xff\xfe", b"a\nb", b"\x1b[2J", b"x" * 255, b" ", b"-rf", b"..."),
    }
    for one in found:
        await box.files.remove(f"/workspace/names/{one.name}")
    assert await box.files.list("/workspace/names") == []


async def test_a_tree_too_deep_for_any_path_outlives_no_sandbox(world):
    """Its removal may be refused, but the agent lives, and the driver deletes it with all the rest."""
    box = await world.sandbox()
    script = """
import os
os.makedirs("/workspace/deep", exist_ok=True); os.chdir("/workspace/deep")
for _ in range(400): os.mkdir("d" * 60); os.chdir("d" * 60)
print("made")
"""
    assert await told(box, python(script)) == ["made"]
    assert await answered(box.files.remove("/workspace/deep", recursive=True)) in {None, 36}
    assert await told(box, shell("echo alive")) == ["alive"]
    await world.driver.destroy(box.id)
    assert [str(path) for path in world.data_dir.rglob(f"*{box.id}*")] == []
    await world.healthy()


async def test_a_file_that_never_ends_is_cut(world):
    """The control: a part of it is read."""
    box = world.attacker
    await told(box, shell("truncate -s 7G /workspace/endless"))
    assert await answered(box.files.read("/workspace/endless", limit_bytes=10)) == bytes(10)
    assert await answered(
        box.files.read("/workspace/endless", offset=6 << 30, limit_bytes=9)
    ) == bytes(9)
    await box.files.remove("/workspace/endless")
    await world.healthy()


async def test_a_file_cut_while_it_is_read_is_no_fault(world):
    box = world.attacker
    script = """
import os
place = os.open("/workspace/cut", os.O_RDWR | os.O_CREAT); print(flush=True)
while True: os.ftruncate(place, 0); os.ftruncate(place, 3 << 20)
"""
    process = await box.start(python(script))
    async for _ in process.output():
        break
    for _ in range(20):
        seen = await answered(box.files.read("/workspace/cut"))
        assert isinstance(seen, int) or not seen.strip(b"\0")
    await process.signal(9)
    await world.healthy()
