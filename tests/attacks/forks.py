"""Attacks as forks of a Python inside: where a kernel is emulated, starting one each costs a second."""

from dataclasses import dataclass

from attacks.table import PRELUDE
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Process, Sandbox

ENDED = b"\nended\n"
SECONDS = 45
"""So long an attack may take; a word of one that is cut off is missing."""
FORKING = f"""
import signal, sys

def attack(script):
    signal.alarm({SECONDS})
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        exec(script, globals())
    except OSError as error:
        print(word(error.errno), file=sys.stderr)
    sys.stdout.flush()
    os._exit(0)

while size := sys.stdin.buffer.readline():
    script = sys.stdin.buffer.read(int(size))
    child = os.fork()
    if not child:
        attack(script)
    os.waitpid(child, 0)
    os.write(1, {ENDED!r})
"""


@dataclass
class Forks:
    """One Python with the prelude in one sandbox. What a script does to its own process is the fork's."""

    process: Process

    @classmethod
    async def start(cls, box: Sandbox, prelude: str = "", *, merge_stderr: bool = True) -> "Forks":
        """Start it, with more of a prelude, and see that it does what it is told."""
        script = f"{PRELUDE}\n{prelude}\n{FORKING}"
        request = ExecRequest(
            argv=("python3", "-I", "-S", "-c", script),
            cwd="/",
            timeout_seconds=None,
            output_limit_bytes=0,
            merge_stderr=merge_stderr,
        )
        forks = cls(await box.start(request, stdin=True))
        said = await forks.run("print(word(errno.EPERM))")
        assert said == b"EPERM\n", said
        return forks

    async def run(self, script: str) -> bytes | None:
        """Return what the script said on standard output; None when the Python ended with it."""
        data = script.encode()
        await self.process.write(b"%d\n%s" % (len(data), data))
        said = b""
        async for stream, chunk in self.process.output():
            said += chunk if stream == "stdout" else b""
            if said.endswith(ENDED):
                return said.removesuffix(ENDED)
        return None
