"""Checks of files: every verb, bytes of any kind, errors by number."""

import errno
from collections.abc import AsyncIterator

from handiwork.model.sandbox import FileKind
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold, refused

BINARY = bytes(range(256)) * 8


@check("files")
async def _a_file_is_written_and_read_back(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/deep/er/file", BINARY, mode=0o640)
    expect(await files.read("/workspace/deep/er/file"), BINARY, "content")
    expect((await files.stat("/workspace/deep/er/file")).mode, 0o640, "mode")
    await files.write("/workspace/deep/er/file", b"")
    expect(await files.read("/workspace/deep/er/file"), b"", "content")


@check("files")
async def _parts_of_a_file_are_read(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/parts", BINARY)
    expect(await files.read("/workspace/parts", offset=10, limit_bytes=5), BINARY[10:15], "part")
    expect(await files.read("/workspace/parts", offset=5000), b"", "what lies past the end")


@check("files")
async def _nothing_is_a_part_too(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/nothing/of-it", BINARY)
    expect(await files.read("/workspace/nothing/of-it", limit_bytes=0), b"", "no bytes")
    expect(await files.list("/workspace/nothing", limit=0), [], "no entries")


@check("files")
async def _five_mebibytes_go_both_ways(bench: Bench) -> None:
    files = (await bench.box()).files
    data = BINARY * 2560
    await files.write("/workspace/large", data)
    expect((await files.stat("/workspace/large")).size, len(data), "size")
    hold(await files.read("/workspace/large") == data, "the content changed on its way")


@check("files")
async def _streams_go_both_ways(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write_stream("/workspace/flow/file", _pieces(BINARY * 1024, 3), mode=0o600)
    expect((await files.stat("/workspace/flow/file")).mode, 0o600, "mode")
    whole = [piece async for piece in files.read_stream("/workspace/flow/file")]
    hold(b"".join(whole) == BINARY * 3072, "the content changed on its way")
    hold(max(map(len, whole)) < len(BINARY) * 512, "it came in one piece")
    part = files.read_stream("/workspace/flow/file", offset=3, limit_bytes=70_000)
    hold(b"".join([piece async for piece in part]) == (BINARY * 40)[3:70_003], "a part is another")
    for limit, content in ((0, []), (1, [BINARY[:1]])):
        found = files.read_stream("/workspace/flow/file", limit_bytes=limit)
        expect([piece async for piece in found], content, "so many bytes")
    await files.write_stream("/workspace/flow/none", _pieces(b"", 1))
    expect([one async for one in files.read_stream("/workspace/flow/none")], [], "nothing")


@check("files")
async def _a_stream_that_breaks_leaves_what_was_there(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/broken/file", b"kept")
    for name in ("file", "new"):
        try:
            await files.write_stream(
                f"/workspace/broken/{name}", _pieces(BINARY * 256, 2, tears=True)
            )
        except Torn:
            continue
        raise Refuted("what broke was told as written")
    expect(await files.read("/workspace/broken/file"), b"kept", "what was there")
    expect([one.name for one in await files.list("/workspace/broken")], ["file"], "names")


@check("files")
async def _streams_that_are_left_hold_up_nothing(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/left", BINARY * 1024)
    for _ in range(70):  # twice what may go on at once
        stream = files.read_stream("/workspace/left")
        expect((await anext(stream))[:1], BINARY[:1], "first byte")
        await stream.aclose()
    expect(len(await files.read("/workspace/left")), len(BINARY) * 1024, "size")


@check("files")
async def _streams_have_the_errors_of_paths(bench: Bench) -> None:
    files = (await bench.box()).files
    for path, number in (("/workspace/no/file", errno.ENOENT), ("/workspace", errno.EISDIR)):
        await refused(anext(files.read_stream(path)), number)
        pieces = _pieces(BINARY * 512, 3)
        await refused(files.write_stream(path, pieces, parents=False), number)
    await refused(anext(files.read_stream("relative")), errno.EINVAL)


class Torn(Exception):
    """What the source of a stream breaks with."""


async def _pieces(piece: bytes, count: int, *, tears: bool = False) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece
    if tears:
        raise Torn


@check("files")
async def _parents_are_made_only_when_asked(bench: Bench) -> None:
    files = (await bench.box()).files
    await refused(files.write("/workspace/none/file", b"", parents=False), errno.ENOENT)
    await refused(files.mkdir("/workspace/none/sub", parents=False), errno.ENOENT)
    await files.mkdir("/workspace/some/sub", mode=0o700)
    expect((await files.stat("/workspace/some/sub")).mode, 0o700, "mode")


@check("files")
async def _a_directory_is_listed_by_name(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.mkdir("/workspace/listed/dir")
    for name in ("b", "a", "ü"):
        await files.write(f"/workspace/listed/{name}", name.encode())
    found = await files.list("/workspace/listed")
    expect([entry.name for entry in found], ["a", "b", "dir", "ü"], "names")
    kinds = [entry.kind for entry in found]
    wanted = [FileKind.FILE, FileKind.FILE, FileKind.DIRECTORY, FileKind.FILE]
    expect(kinds, wanted, "kinds")


@check("files")
async def _a_large_directory_is_listed_whole(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.mkdir("/workspace/many")
    for number in range(600):
        await files.write(f"/workspace/many/{'n' * 150}{number}", b"")
    expect(len(await files.list("/workspace/many")), 600, "entries")


@check("files")
async def _removing_says_what_it_must_not(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/removed/sub/file", b"")
    await refused(files.remove("/workspace/removed"), errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR)
    await files.remove("/workspace/removed", recursive=True)
    await refused(files.stat("/workspace/removed"), errno.ENOENT)
    await refused(files.remove("/workspace/removed"), errno.ENOENT)


@check("files")
async def _a_file_is_moved(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/from", b"moved")
    await files.move("/workspace/from", "/workspace/to")
    expect(await files.read("/workspace/to"), b"moved", "content")
    await refused(files.stat("/workspace/from"), errno.ENOENT)


@check("files")
async def _path_errors_have_their_numbers(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/plain", b"")
    await refused(files.read("/workspace/missing"), errno.ENOENT)
    await refused(files.read("/workspace"), errno.EISDIR)
    await refused(files.list("/workspace/plain"), errno.ENOTDIR)
    await refused(files.read("/workspace/plain/x"), errno.ENOTDIR)
    await refused(files.read("relative"), errno.EINVAL)
    await refused(files.read("/workspace/a\0b"), errno.EINVAL)


@check("shell")
async def _links_are_told_and_not_followed_on_removal(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/kept/file", b"kept")
    await bench.shell("mkdir /workspace/l; ln -s /workspace/kept /workspace/l/link")
    expect((await files.stat("/workspace/l/link", follow=False)).kind, FileKind.LINK, "kind")
    expect((await files.stat("/workspace/l/link")).kind, FileKind.DIRECTORY, "kind followed")
    expect(await files.realpath("/workspace/l/link/file"), "/workspace/kept/file", "real path")
    await files.remove("/workspace/l", recursive=True)
    expect(await files.read("/workspace/kept/file"), b"kept", "what the link named")


@check("shell")
async def _what_is_no_file_is_not_read(bench: Bench) -> None:
    files = (await bench.box()).files
    await bench.shell("mkfifo /workspace/fifo")
    await refused(files.read("/workspace/fifo"), errno.EINVAL, errno.ESPIPE, errno.ENXIO)
    await refused(files.read("/dev/zero"), errno.EINVAL, errno.ESPIPE, errno.ENXIO)


@check("shell")
async def _commands_and_files_see_the_same(bench: Bench) -> None:
    files = (await bench.box()).files
    await files.write("/workspace/script.sh", b"#!/bin/sh\necho ran > /home/made\n", mode=0o755)
    expect((await bench.shell("/workspace/script.sh")).exit_code, 0, "exit code")
    expect(await files.read("/home/made"), b"ran\n", "what the script wrote")
