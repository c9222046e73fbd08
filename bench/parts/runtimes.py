"""Others' ways to run a piece of code: from nothing to its first output."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from harness import Arm, Bench, Skip, peer

CODE = "40 + 2"


def _spawned(*argv: str) -> Arm:
    def run() -> None:
        done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        if done.stdout.strip() != b"42":
            raise RuntimeError(f"{argv[0]} gave {done.stdout!r}")

    async def arm() -> None:
        await asyncio.to_thread(run)

    return arm


def python(bench: Bench) -> Arm:
    """A process of Python, without site packages."""
    return _spawned(sys.executable, "-I", "-S", "-c", f"print({CODE})")


def deno(bench: Bench) -> Arm:
    """A process of Deno, without permissions."""
    program = peer("deno", "deno")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    bench.versions["deno"] = told.stdout.split()[1]
    return _spawned(str(program), "eval", "--no-lock", f"console.log({CODE})")


@contextlib.contextmanager
def mini_racer(bench: Bench) -> Iterator[Arm]:
    """An isolate of V8 in one process that has many: no process stands between two of them."""
    program = str(peer("mini-racer", "python"))
    server = (
        "import sys, time\nfrom py_mini_racer import MiniRacer\n"
        "for _ in sys.stdin:\n"
        "    before = time.perf_counter()\n"
        f"    assert MiniRacer().eval({CODE!r}) == 42\n"
        "    print(time.perf_counter() - before, flush=True)\n"
    )
    with subprocess.Popen(
        [program, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, told = process.stdin, process.stdout
        if asked is None or told is None:
            raise Skip("mini-racer has no pipes")

        def run() -> float:
            asked.write("\n")
            asked.flush()
            return float(told.readline())

        async def arm() -> float:
            return await asyncio.to_thread(run)

        yield arm
        asked.close()
