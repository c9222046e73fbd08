"""A sandbox that sleeps with files of its own, until the first output of its next command."""

import time

from handiwork.model.sandbox import ExecRequest, SandboxSpec
from harness import Bench
from parts.creation import COMMAND, sandboxes

FILL = (
    "cp -r /usr/include /var/tmp/; "
    "i=0; while [ $i -lt 75 ]; do head -c 4194304 /dev/urandom >/var/tmp/$i; i=$((i+1)); done; "
    "du -sm /var/tmp | cut -f1"
)
LEAST_MIB = 300


async def measure(bench: Bench) -> None:
    """wake_ms: in the namespace tier, with at least 300 MiB written."""
    async with sandboxes() as boxes:
        spec = SandboxSpec(id=boxes.next_id())
        box = await boxes.driver.create(spec)
        try:
            filled = await box.exec(
                ExecRequest(argv=("sh", "-c", FILL), cwd="/", timeout_seconds=120)
            )
            if filled.exit_code or int(filled.stdout) < LEAST_MIB:
                raise RuntimeError(f"the sandbox could not be filled: {filled}")
            taken = []
            for _ in range(2 + bench.times(50, 10)):
                await boxes.driver.sleep(spec.id)
                taken.append(await _wake(boxes.driver, spec))
        finally:
            await boxes.driver.destroy(spec.id)
    bench.record("wake_ms", taken[2:], "ms", scale=1000, mib=int(filled.stdout))


async def _wake(driver, spec: SandboxSpec) -> float:
    before = time.perf_counter()
    box = await driver.restore(spec)
    ended = await box.exec(ExecRequest(argv=COMMAND))
    seconds = time.perf_counter() - before
    if ended.stdout != b"ready\n":
        raise RuntimeError(f"the sandbox answered {ended}")
    return seconds
