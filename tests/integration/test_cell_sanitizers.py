"""The program of cells under ASan and UBSan, and what reads bytes in it fuzzed by libFuzzer.

The cage forbids what a sanitizer needs: its place is taken by `cell/uncaged.c`, in this build alone.
"""

import asyncio
import base64
import hashlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from cell_programs import FILES, PROGRAMS
from handiwork.model.code import CodeLimits, CodeRequest
from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.zygotes import Cage, Cause, End, Shape, Zygote

CELL = Path(__file__).parents[2] / "cell"
SHIPPED = Path(__file__).parents[2] / "src/handiwork/isolate_cell"
REPORTED = 99
"""The exit code of a process that a sanitizer ended (`cell/uncaged.c`)."""
MOST = CodeLimits(cpu_ms=1500, wall_seconds=20)
FUZZ_SECONDS = 20
FORKS = 400
BUGS = {
    "frames": ("frames.c", "    room[used] = displaced;\n", ""),
    "zygote": ("zygote.c", "bool known = cell->pid && cell->number", "bool known = cell->number"),
}
"""What each fuzz target must find: in which file, what stands there, and what is put in its place."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
]


class Sanitized:
    """The build, started by a script of its own so that what it reports is kept, with a variable more or none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        subprocess.run([CELL / "build.sh", "--sanitize", "--output", folder], check=True)

    def program(self, variable: str = "") -> Path:
        script = self.folder / f"start{variable.partition('=')[0]}"
        target = self.folder / "isolate_cell_sanitized"
        script.write_text(f'#!/bin/sh\nexec env {variable} {target} "$@" 2>>{self.log}\n')
        script.chmod(0o755)
        self.log.write_text("")
        return script

    def reports(self) -> str:
        """Return what it said: a sanitizer's report, and nothing else, is ever written there."""
        return self.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Sanitized:
    return Sanitized(tmp_path_factory.mktemp("sanitized"))


@pytest_asyncio.fixture(loop_scope="module")
async def zygote(sanitized):
    async with await Zygote.start(Shape(), user_id=0, program=sanitized.program()) as found:
        yield found
        assert found.alive
    assert sanitized.reports() == ""


async def serve(name: str, argument: msgspec.Raw) -> object:
    """Answer as a host does, in small."""
    given = msgspec.json.decode(argument)
    match name:
        case "workspace.module" if given["path"] in FILES:
            return FILES[given["path"]]
        case "crypto.digest":
            data = base64.b64decode(given["data"])
            return base64.b64encode(hashlib.sha256(data).digest()).decode()
        case "net.fetch":
            await asyncio.sleep(0.01 if given["url"].endswith("slow") else 0)
            told = {"status": 200, "statusText": "Fine", "headers": [["a", "b"]], "body": 1}
            return {**told, "url": given["url"], "redirected": False}
        case "net.read" | "net.close":
            return None
        case "codemode.echo":
            return given
    raise ToolFailedError(f"there is no {name[:80]}")


async def ended(zygote: Zygote, code: str) -> End:
    """Run a program in a cell of its own, and say how that ended after a second one, which gives what it should."""
    cell = await Cell.fork(zygote)
    for text in (code, "1 + 1"):
        if cell.alive:
            request = CodeRequest(code=text, name="/workspace/code", limits=MOST)
            result = await cell.run(request, serve)
            assert text is code or (result.value_json, result.error) == (b"2", None), code
    cell.close()
    return await cell.gone()


@pytest.mark.parametrize("group", PROGRAMS)
async def test_no_program_makes_the_cell_misbehave(zygote: Zygote, sanitized, group: str) -> None:
    assert sum(map(len, PROGRAMS.values())) >= 200
    for code in PROGRAMS[group]:
        end = await ended(zygote, code)
        assert end.code != REPORTED, (code, sanitized.reports())
        assert sanitized.reports() == "", code


async def test_a_zygote_of_many_forks(zygote: Zygote) -> None:
    ends: list[End] = []
    for _ in range(4):
        cells = [await zygote.fork(ends.append) for _ in range(FORKS // 4)]
        for number, _ in cells[::3]:
            zygote.watch(number, cpu_seconds=1e9, wall_seconds=1e9)
            zygote.unwatch(number)
        for number, _ in cells[1::3]:
            zygote.watch(number, cpu_seconds=5.0, wall_seconds=0.05)
        for number, _ in cells[::3]:
            zygote.end(number)
        for _, ours in cells[2::3]:
            ours.close()
        async with asyncio.timeout(60):
            await zygote.emptied()
        for _, ours in cells:
            ours.close()
    assert len(ends) == FORKS
    assert {end.cause for end in ends} == {Cause.DEMAND, Cause.WALL, Cause.ITSELF}
    assert {end.code for end in ends if end.cause is Cause.ITSELF} == {0}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x01\x00\x00\x02x",
        b"\x04\x00\x00\x00null",
        b"\x02\x00\x00\x00{}" * 50,
        b"\x01\x00\x00\x00{",
        b"\x02\x00\x00\x00\xff\xfe",
        b'\x0b\x00\x00\x00{"t":"run"}',
        b'\x17\x00\x00\x00{"t":"settled","s":[1]} ' + b"\x00" * 40,
        b"\x00" * 4096,
    ],
)
async def test_frames_that_no_host_sends_end_their_cell_alone(zygote: Zygote, data: bytes) -> None:
    gone: asyncio.Future[End] = asyncio.get_running_loop().create_future()
    _, ours = await zygote.fork(gone.set_result)
    with ours:
        await asyncio.get_running_loop().sock_sendall(ours, data)
        ours.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(20):
            end = await gone
    assert end.cause is Cause.ITSELF
    assert end.code in (0, 4, 5)


async def test_a_bug_in_a_cell_is_seen(sanitized: Sanitized) -> None:
    program = sanitized.program("PLANTED=1")
    async with await Zygote.start(Shape(), user_id=0, program=program) as zygote:
        end = await ended(zygote, "1")
        assert zygote.alive
    assert end.code == REPORTED
    assert "heap-buffer-overflow" in sanitized.reports()


async def test_what_has_no_cage_says_so_and_is_not_shipped(zygote: Zygote) -> None:
    assert zygote.holds is Cage(0)
    for program in (SHIPPED, Path(f"{SHIPPED}_python")):
        assert b"asan_default_options" not in program.read_bytes()


def built(folder: Path, change: Callable[[Path], None] = lambda sources: None) -> Path:
    """Return where the fuzz targets are, built from a copy of the sources that was changed so."""
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    sources = folder / "cell"
    shutil.copytree(CELL, sources, ignore=shutil.ignore_patterns("build"))
    change(sources)
    subprocess.run([sources / "build.sh", "--fuzz", "--output", folder], check=True)
    return folder


def fuzzed(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    seeds = folder / f"seeds_{target}"
    seeds.mkdir()
    frames = b"\x02\x00\x00\x00{}\x00\x00\x00\x00\x03\x00\x00\x00abc"
    fork, watch, end = (bytes((code,)) for code in (0b0000_0011, 0b0001_0110, 0b0001_1110))
    steps = fork + bytes(25) + watch + bytes(5) + b"\0\0\0\0" + b"\xff" * 16 + end + bytes(25)
    (seeds / "one").write_bytes(b"\x03\x01\x00\x07\x02\xff\x10\x01" + frames)
    (seeds / "two").write_bytes(steps + b"\xe0\x00\x00\x00" + steps + b"\xc0\x00\x20\x40")
    options = [f"-max_total_time={FUZZ_SECONDS}", "-max_len=2000", f"-artifact_prefix={folder}/"]
    return subprocess.run(
        [folder / f"fuzz_{target}", *options, seeds], check=False, capture_output=True, text=True
    )


async def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    folder = built(tmp_path)
    for target in BUGS:
        done = await asyncio.to_thread(fuzzed, folder, target)
        assert done.returncode == 0, done.stderr[-3000:]
        runs = re.search(r"Done (\d+) runs", done.stderr)
        assert runs is not None
        assert int(runs[1]) > 5000


@pytest.mark.parametrize("target", BUGS)
async def test_a_bug_that_is_planted_is_found(tmp_path: Path, target: str) -> None:
    name, known, planted = BUGS[target]

    def change(sources: Path) -> None:
        text = (sources / name).read_text()
        assert text.count(known) == 1
        (sources / name).write_text(text.replace(known, planted))

    done = await asyncio.to_thread(fuzzed, built(tmp_path, change), target)
    assert done.returncode != 0
    assert "SUMMARY: " in done.stderr
    assert list(tmp_path.glob("crash-*"))
