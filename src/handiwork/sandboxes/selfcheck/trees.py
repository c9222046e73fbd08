"""Checks of trees: what a sandbox's files are as a tar, out and in, whatever is in them."""

import errno
import io
import tarfile
from collections.abc import AsyncIterator

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import TreeReport
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold
from handiwork.sandboxes.tree_streams import pack, unpack

MANY = 300
LARGE_BYTES = 6_000_000
_Entry = tuple[tarfile.TarInfo, bytes]


@check("shell")
async def _a_tree_goes_out_and_in_as_it_is(bench: Bench) -> None:
    await bench.shell(
        "mkdir -p /workspace/tree/empty /workspace/tree/deep/er; cd /workspace/tree;"
        f" head -c {LARGE_BYTES} /dev/zero >large; echo x >deep/er/-odd; chmod 750 deep/er/-odd;"
        " ln -s ../../etc/passwd link; ln large same; mkfifo pipe;"
        f" n=0; while [ $n -lt {MANY} ]; do echo $n >deep/$n; n=$((n+1)); done"
    )
    data, report = await _packed(bench, "/workspace/tree")
    expect(report.skipped, ("./pipe: a FIFO",), "what was left out")
    await unpack(await bench.box(), "/workspace/tree/copy", _pieces(data))
    told = await bench.shell(
        "cd /workspace/tree/copy; wc -c <same; cat deep/er/-odd; stat -c %N link; ls deep | wc -l;"
        " ls -d empty; stat -c '%a %h' deep/er/-odd large"
    )
    lines = (
        str(LARGE_BYTES),
        "x",
        "'link' -> '../../etc/passwd'",
        str(MANY + 1),
        "empty",
        "750 1",
        "644 2",
    )
    expect(told.stdout.decode().split("\n")[:-1], list(lines), "the copy")


@check("shell")
async def _links_of_a_tree_lead_into_the_own_root(bench: Bench) -> None:
    box = await bench.box()
    await bench.shell("echo inside >/etc/tree-canary; ln -s /etc /workspace/etc-link")
    data, _ = await _packed(bench, "/workspace/etc-link")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        hold("./tree-canary" in archive.getnames(), "the link was not followed, or out of the root")
        found = archive.extractfile("./tree-canary")
        expect(found and found.read(), b"inside\n", "what the link leads to")
    await unpack(box, "/workspace/etc-link/below", _pieces(_tar(_entry("file", b"put"))))
    expect(await box.files.read("/etc/below/file"), b"put", "what was put there")


@check("shell")
async def _devices_go_neither_out_nor_in(bench: Bench) -> None:
    data, report = await _packed(bench, "/dev")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        hold(not any(one.isdev() for one in archive), "a device came out")
    hold("./null: a device" in report.skipped, f"no device was named, but {report.skipped}")
    device = _entry("node", kind=tarfile.CHRTYPE)
    put = await unpack(await bench.box(), "/workspace/nodes", _pieces(_tar(device)))
    expect(put.skipped, ("node: a device",), "what was left out")
    expect((await bench.shell("ls /workspace/nodes")).stdout, b"", "what was made")


@check("shell")
async def _a_tree_over_a_limit_ends_and_leaves_no_process(bench: Bench) -> None:
    await bench.shell("head -c 9000000 /dev/zero >/workspace/over")
    try:
        await _packed(bench, "/workspace/over", most_bytes=1_000_000)
    except GuestError as error:
        expect(error.errno, errno.EFBIG, "error")
    else:
        raise Refuted("a tree over its limit came out")
    for _ in range(100):
        if (await bench.shell("grep -l '^tar$' /proc/[0-9]*/comm")).stdout == b"":
            return
    raise Refuted("its tar is left")


@check("shell")
async def _what_cannot_be_unpacked_is_told(bench: Bench) -> None:
    await bench.shell("mkdir -p /workspace/blocked; echo x >/workspace/blocked/way")
    data = _tar(_entry("way/file", b"x"), _entry("beside", b"made"))
    try:
        await unpack(await bench.box(), "/workspace/blocked", _pieces(data))
    except GuestError as error:
        hold("way/file" in str(error), f"the file is not named: {error}")
    else:
        raise Refuted("a file was unpacked below a file")
    made = await (await bench.box()).files.read("/workspace/blocked/beside")
    expect(made, b"made", "what could be unpacked")


async def _packed(
    bench: Bench, path: str, *, most_bytes: int = 1 << 30
) -> tuple[bytes, TreeReport]:
    pieces: list[bytes] = []
    async for piece in pack(await bench.box(), path, most_bytes=most_bytes):
        if isinstance(piece, TreeReport):
            return b"".join(pieces), piece
        pieces.append(piece)
    raise Refuted("nothing was told of the tree")


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]


def _entry(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> _Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info, data


def _tar(*members: _Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
