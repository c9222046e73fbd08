"""The stock tools in a real sandbox: hostile commands, floods of output, odd files."""

import asyncio
import base64
from pathlib import Path

import pytest

from handiwork.config import ToolSettings
from handiwork.model.sandbox import OUT_OF_MEMORY
from handiwork.model.tool import DocumentBlock, ImageBlock
from handiwork.sandboxes.guest_client import GuestSandbox
from tool_world import ToolWorld, sandbox_of, text

MIB = 1 << 20
FILE = "/workspace/.tool-output/sevt_00000001"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
async def sandbox(data_dir: Path):
    async with sandbox_of(data_dir) as made:
        yield made


@pytest.fixture
def world(sandbox: GuestSandbox) -> ToolWorld:
    return ToolWorld(sandbox, ToolSettings(default_timeout_seconds=20))


HUNGRY = "python3 -c 'x = bytearray(200 << 20)'"


async def test_a_command_that_fails_for_memory_is_told_so(data_dir: Path) -> None:
    async with sandbox_of(data_dir, "sbx_hungry000", memory_mib=64) as sandbox:
        world = ToolWorld(sandbox, ToolSettings(default_timeout_seconds=20))
        told, failed = await world.bash(f"X=kept; sh -c {HUNGRY!r}' || exit 2'")
        assert failed
        assert told.endswith(f"\nexit code 2\n[{OUT_OF_MEMORY}]")
        assert await world.bash("false") == ("exit code 1", True)
        told, failed = await world.bash(f"{HUNGRY}; echo $X")
        assert (OUT_OF_MEMORY in told, told.endswith("kept"), failed) == (False, True, False)
        told, _ = await world.bash(f"# background after 20s\n{HUNGRY}")
        assert told.endswith(f"\nexit code 137\n[{OUT_OF_MEMORY}]")
        await world.bash(f"# background\n{HUNGRY}")
        news = ""
        for _ in range(200):
            news = news if OUT_OF_MEMORY in news else (await world.bash("sleep 0.1"))[0]
        assert f" ended with exit code 137 ({OUT_OF_MEMORY});" in news


@pytest.mark.parametrize(
    "command",
    [
        "exec 198>&-",
        "exec 198>/dev/null 1>&- 2>&- 0<&-",
        "ulimit -n 200",
        "printf() { :; }; eval() { :; }; exec() { :; }",
        "shopt -s expand_aliases; alias printf=true eval=true command=true builtin=true",
        "set -x",
        "set -v",
        "BASH_XTRACEFD=1; set -x",
        "trap 'echo trapped' DEBUG ERR",
        "set -o posix",
        "set -euo pipefail",
        "IFS=0123456789",
        "PATH=/nowhere; unset HOME",
        "export POSIXLY_CORRECT=1 LC_ALL=nonsense",
        "mkdir -p gone; cd gone; rmdir ../gone",
        "set -m; sleep 0.01 &",
        "coproc cat",
        "cat; read line; true",
        "case x in",
        "fi",
        "readonly IFS PATH",
        "shopt -s extglob nullglob failglob",
        "printf '\\n%032d0\\n' 0",
    ],
)
async def test_a_shell_goes_on_after(world: ToolWorld, command: str) -> None:
    await world.bash("kept=1")
    await world.bash(command)
    shown, failed = await world.bash("[[ $kept = 1 ]] && echo alive")
    assert "alive" in shown.splitlines(), shown
    assert not failed
    assert "former shell was gone" not in shown
    refused, failed = await world.bash("touch made; echo 'open")
    assert failed
    assert "ends inside a quote or block; nothing of it was run" in refused
    assert await world.told("glob", pattern="made") == ("no matches", False)
    assert "alive" in (await world.bash("[[ $kept = 1 ]] && echo alive"))[0]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("set -e; false", 1),
        ("kill -9 $$", 137),
        ("exec false", 1),
        ("trap 'exit 9' EXIT; exit 4", 9),
        ("sleep 30 & exit 5", 5),
    ],
)
async def test_a_shell_that_ended_is_replaced(world: ToolWorld, command: str, code: int) -> None:
    shown, failed = await world.bash(command)
    assert failed == bool(code)
    assert (f"exit code {code}" in shown) == bool(code)
    assert "the next command starts a new one" in shown
    shown, failed = await world.bash("echo on")
    assert not failed
    assert shown.startswith("[the former shell was gone")
    assert await world.bash("echo on") == ("on", False)


async def test_a_shell_killed_between_commands_is_replaced_and_the_command_runs(
    world: ToolWorld,
) -> None:
    await world.bash("(sleep 0.1; kill -9 $$) >/dev/null 2>&1 & X=1")
    await asyncio.sleep(2)
    shown, failed = await world.bash("echo [$X]")
    assert not failed
    assert shown.startswith("[the former shell was gone")
    assert shown.endswith("\n[]")


async def test_jobs_of_the_shell_survive_its_commands(world: ToolWorld) -> None:
    await world.bash("sleep 71 & nohup sleep 72 >/dev/null 2>&1 & setsid sleep 73 & disown -a")
    await world.bash("echo 'open")
    # Each is seen by its name only once it is executed.
    count = (
        "for i in $(seq 200); do n=$(pgrep -cf '^sleep 7'); [ $n = 3 ] && break; sleep 0.05; done"
    )
    shown, _ = await world.bash(f"{count}; echo $n")
    assert shown == "3"
    await world.told("bash", restart=True)
    shown, _ = await world.bash("pgrep -cf '^sleep 7'")
    assert shown == "0\nexit code 1"


async def test_a_timeout_ends_the_whole_tree(world: ToolWorld) -> None:
    tree = "sleep 81 & setsid sh -c 'sleep 82 & wait' & echo early; sleep 83"
    shown, failed = await world.bash(tree, timeout_ms=3000)
    assert failed
    assert shown.startswith("bash: bash command timed out after 3.0s\nearly\n")
    assert (await world.bash("pgrep -cf '^sleep 8'"))[0].endswith("0\nexit code 1")


async def test_no_credential_of_a_brain_is_in_the_environment(sandbox: GuestSandbox) -> None:
    sandbox._env = {**sandbox._env, "ANTHROPIC_API_KEY": "planted", "OTHER_KEY": "control"}
    world = ToolWorld(sandbox, ToolSettings())
    shown, _ = await world.bash("env; tr '\\0' '\\n' </proc/self/environ /proc/$$/environ")
    assert "OTHER_KEY=control" in shown
    assert "ANTHROPIC" not in shown
    assert "planted" not in shown


def memory_mib() -> float:
    """Return what of this process is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


async def flood(world: ToolWorld, command: str) -> tuple[str, float]:
    """Run it; return what the model reads, and how much this process grew while it ran."""
    await world.bash("true")
    before, peak = memory_mib(), 0.0
    task = asyncio.ensure_future(world.bash(command))
    while not task.done():
        peak = max(peak, memory_mib())
        await asyncio.wait([task], timeout=0.02)
    shown, failed = await task
    assert not failed, shown[-300:]
    return shown, peak - before


async def test_a_flood_is_kept_up_to_the_limit_in_bounded_memory(sandbox: GuestSandbox) -> None:
    world = ToolWorld(sandbox, ToolSettings(spool_mib=4))
    shown, grown = await flood(world, "echo FIRST; yes | head -c 60M; echo LAST")
    assert grown < 16
    assert shown.startswith("FIRST\ny\n")
    assert shown.endswith("\ny\nLAST")
    assert f"{60 * MIB + 11} bytes in all" in shown
    assert "the first 4194304 bytes are in /workspace/.tool-output/sevt_00000002" in shown
    assert len(shown) < 50_000
    size, _ = await world.bash("stat -c %s .tool-output/sevt_00000002")
    assert size == str(4 * MIB)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("command", "total"),
    [
        ("head -c 1G /dev/zero", 1 << 30),
        ("head -c 1G /dev/urandom", 1 << 30),
        ("seq 10000000", 78_888_897),
        ("yes 0123456789 | head -n 10000000 | stdbuf -oL cat", 110_000_000),
    ],
)
async def test_a_great_flood(sandbox: GuestSandbox, command: str, total: int) -> None:
    world = ToolWorld(sandbox, ToolSettings(longest_timeout_seconds=280))
    await world.bash("true", timeout_ms=1)
    before = memory_mib()
    shown, failed = await world.bash(command, timeout_ms=280_000)
    assert not failed, shown[-300:]
    assert f"{total} bytes in all" in shown
    assert memory_mib() - before < 32


async def test_binary_output_is_text_that_any_brain_takes(world: ToolWorld) -> None:
    shown, failed = await world.bash("printf 'a\\0b\\xff\\xed\\xa0\\x80c\\x1b[31md\\r\\n'")
    assert not failed
    assert shown.encode().decode() == shown
    assert "\0" not in shown
    assert shown.startswith("a\ufffdb\ufffd")
    assert shown.endswith("cd\r")


async def test_a_name_in_the_way_of_the_output_harms_nothing(world: ToolWorld) -> None:
    for way in ("mkfifo .tool-output", "ln -s /etc .tool-output", "echo x >.tool-output"):
        await world.bash(f"rm -rf .tool-output; {way}")
        shown, failed = await world.bash("seq 30000", timeout_ms=15_000)
        assert not failed
        assert "could not be kept in /workspace/.tool-output/" in shown
        assert shown.endswith("\n30000")
    await world.bash("rm -rf .tool-output; mkdir .tool-output; echo precious >/etc/kept")
    shown, _ = await world.bash("seq 30000")
    assert "the whole is in" in shown


async def test_a_read_of_a_long_text_is_kept_as_well(world: ToolWorld) -> None:
    await world.bash("seq 1 30000 >long.txt; seq 1 9000 >short.txt")
    whole = "\n".join(map(str, range(1, 30001))) + "\n"
    shown, failed = await world.told("read", file_path="long.txt")
    assert not failed
    assert shown.startswith("1\n2\n")
    assert "/workspace/.tool-output/sevt_00000002" in shown
    kept = await world.sandbox.files.read("/workspace/.tool-output/sevt_00000002")
    assert kept.decode() == whole
    shown, _ = await world.told("read", file_path="long.txt", view_range=[29_999, -1])
    assert shown == "29999\n30000\n"
    shown, _ = await world.told("grep", pattern="7", path="long.txt")
    assert "the whole is in /workspace/.tool-output/sevt_00000004" in shown
    assert shown.endswith("/workspace/long.txt:29997:29997")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        ("mkfifo x.txt", "read: x.txt: not a regular file"),
        ("mkfifo x.png; mv x.png x.txt", "read: x.txt: not a regular file"),
        ("mkdir x.txt", "read: x.txt: not a regular file"),
        ("ln -s /dev/zero x.txt", "outside the session's working directory"),
        ("ln -s x.txt x.txt", "read: "),
        ("printf 'a\\xff' >x.txt", "read: x.txt: not valid UTF-8 text"),
        ("truncate -s 3G x.txt", "read: x.txt is 3221225472 bytes, exceeds"),
    ],
)
async def test_what_read_refuses(world: ToolWorld, make: str, told: str) -> None:
    await world.bash(make)
    shown, failed = await world.told("read", file_path="x.txt")
    assert failed
    assert told in shown


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkqGdgAAACBQEAHTKLbwAAAABJRU5ErkJggg=="
)
GIF = b"GIF89a\1\0\1\0\0\0\0;"
JPEG = b"\xff\xd8\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0\xff\xd9"
WEBP = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0"
KINDS = {
    "png": ("image/png", PNG),
    "jpg": ("image/jpeg", JPEG),
    "jpeg": ("image/gif", GIF),  # told by what it holds
    "gif": ("image/gif", GIF),
    "webp": ("image/webp", WEBP),
    "pdf": ("application/pdf", b"%PDF-1.7\nrest"),
}


@pytest.mark.parametrize("ending", KINDS)
async def test_images_and_documents_are_blocks(world: ToolWorld, ending: str) -> None:
    media, data = KINDS[ending]
    await world.sandbox.files.write(f"/workspace/x.{ending}", data)
    result = await world.call("read", {"file_path": f"x.{ending}"})
    kind = DocumentBlock if ending == "pdf" else ImageBlock
    assert result.content == (kind(media_type=media, data=base64.b64encode(data).decode()),)


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("data", [b"", PNG[:40], b"<html>", b"\0" * 100])
async def test_what_only_pretends_to_be_one_is_refused(
    world: ToolWorld, ending: str, data: bytes
) -> None:
    """A block that the model's service refuses would end the whole session."""
    await world.sandbox.files.write(f"/workspace/x.{ending}", data)
    result = await world.call("read", {"file_path": f"x.{ending}"})
    assert result.is_error
    assert f"read: x.{ending}: it " in text(result)


@pytest.mark.parametrize(("ending", "limit"), [("png", 3_932_160), ("pdf", 20 * MIB)])
async def test_large_ones_are_refused_before_they_are_read(
    world: ToolWorld, ending: str, limit: int
) -> None:
    await world.sandbox.files.write(f"/workspace/x.{ending}", KINDS[ending][1])
    for size, fails in ((limit, False), (limit + 1, True), (3 << 30, True)):
        await world.bash(f"truncate -s {size} x.{ending}")
        result = await world.call("read", {"file_path": f"x.{ending}"})
        assert result.is_error == fails
        if fails:
            assert f"exceeds {limit}-byte limit for image/PDF files" in text(result)
