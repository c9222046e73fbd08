"""Isolates at the driver's port: made with a cell that stands ready or is forked, run, called, weighed, ended."""

import asyncio
import contextlib
import os
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from handiwork.model.code import CodeLimits, CodeRequest, Language
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox
from handiwork.sandboxes.protocol import Wish
from harness import Bench, Skip

USER_ID = 64103
READY = 16
TRIVIAL: dict[Language, str] = {
    "javascript": "40 + 2",
    "python": "40 + 2",
    "bash": "echo $((40 + 2))",
}
CALLING: dict[Language, str] = {
    "javascript": "await codemode.one({})",
    "python": "await codemode.one({})",
    "bash": "cat one",  # of the workspace, as a tool's answer is not to be had
}
TWENTY: dict[Language, str] = {
    "javascript": """
const text = JSON.stringify({ names: ["a", "b"], numbers: [1, 2, 3] });
const parsed = JSON.parse(text);
const words = "the quick brown fox jumps over the lazy dog".split(/\\s+/);
const counts = new Map();
for (const word of words) {
  counts.set(word, (counts.get(word) ?? 0) + 1);
}
const longest = words.reduce((one, other) => (other.length > one.length ? other : one));
const matched = words.filter((word) => /^[a-f]/.test(word));
const made = Object.fromEntries(counts);
const sum = parsed.numbers.reduce((one, other) => one + other, 0);
const sorted = [...words].sort();
const upper = sorted.map((word) => word.toUpperCase()).join(" ");
const pairs = parsed.names.map((name, at) => [name, parsed.numbers[at]]);
const nested = { pairs, made, matched };
const again = JSON.parse(JSON.stringify(nested));
[longest, sum, upper.length, again.pairs.length]
""",
    "python": """
import json
import re
text = json.dumps({"names": ["a", "b"], "numbers": [1, 2, 3]})
parsed = json.loads(text)
words = re.split(r"\\s+", "the quick brown fox jumps over the lazy dog")
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
longest = max(words, key=len)
matched = [word for word in words if re.match("[a-f]", word)]
made = dict(counts)
total = sum(parsed["numbers"])
ordered = sorted(words)
upper = " ".join(word.upper() for word in ordered)
pairs = list(zip(parsed["names"], parsed["numbers"]))
nested = {"pairs": pairs, "made": made, "matched": matched}
again = json.loads(json.dumps(nested))
squares = [number**2 for number in range(10)]
whole = {"longest": longest, "total": total, "squares": squares}
[longest, total, len(upper), len(again["pairs"])]
""",
    "bash": """
text='{"names": ["a", "b"], "numbers": [1, 2, 3]}'
total=$(jq '.numbers | add' <<< "$text")
words=(the quick brown fox jumps over the lazy dog)
declare -A counts
for word in "${words[@]}"; do
  counts[$word]=$((${counts[$word]:-0} + 1))
done
longest=
for word in "${words[@]}"; do
  if ((${#word} > ${#longest})); then
    longest=$word
  fi
done
matched=$(printf '%s\\n' "${words[@]}" | grep '^[a-f]')
ordered=$(printf '%s\\n' "${words[@]}" | sort)
upper=$(tr a-z A-Z <<< "$ordered")
pairs=$(jq -c '[.names, .numbers] | transpose' <<< "$text")
squares=$(seq 10 | awk '{ print $1 * $1 }')
echo "$longest $total ${#upper} $pairs" > whole
cat whole
""",
}
"""Of twenty lines each."""


class Isolates:
    """A driver on a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.driver = IsolateDriver(directory, user_id=USER_ID if os.geteuid() == 0 else 0)
        self._count = 0

    async def ready(self, count: int) -> None:
        """Have so many cells of each language stand ready, none if 0."""
        wish = Wish(image="", limits=Limits(), sandboxes=count)
        await self.driver.prepare([wish] if count else [])

    async def create(self) -> IsolateSandbox:
        """Make one, of an id that is not used twice."""
        self._count += 1
        return await self.driver.create(SandboxSpec(id=f"sbx_{self._count:032x}"))

    async def first_result(self, language: Language) -> float:
        """Return the seconds from nothing to the first result."""
        before = time.perf_counter()
        box = await self.create()
        await value(box, TRIVIAL[language], language)
        seconds = time.perf_counter() - before
        await self.driver.destroy(box.id)
        return seconds


async def value(box: IsolateSandbox, code: str, language: Language, **given: Any) -> Any:
    """Return what code gave; RuntimeError for an error of its."""
    done = await box.run_code(CodeRequest(code=code, language=language, **given), _tool)
    if done.error is not None:
        raise RuntimeError(f"{language}: {done.error}")
    return done.value


async def _tool(name: str, argument: object) -> int:
    return 1


@contextlib.asynccontextmanager
async def isolates() -> AsyncIterator[Isolates]:
    """Yield a driver; all of it is gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    made = Isolates(directory)
    try:
        yield made
    finally:
        await made.ready(0)
        for left in await made.driver.leftovers():
            await made.driver.destroy(left)
        shutil.rmtree(directory)


async def measure_runs(bench: Bench, made: Isolates, language: Language, short: str) -> None:
    """Runs in a warm cell, without a call and with one."""
    box = await made.create()
    arms = {
        f"{short}_warm_run_ms": lambda: value(box, TRIVIAL[language], language),
        f"{short}_tool_call_ms": lambda: value(box, CALLING[language], language),
    }
    await box.files.write("/workspace/one", b"1")
    taken = await bench.alternate(arms, count=bench.times(2000, 300), warm_up=50)
    for name, seconds in taken.items():
        bench.record(name, seconds, "ms", scale=1000)
    await made.driver.destroy(box.id)


async def measure_idle(bench: Bench, made: Isolates, language: Language, name: str) -> None:
    """Private memory of a cell that has run twenty lines, with its page tables: the mean of many."""
    boxes = [await made.create() for _ in range(bench.times(100, 30))]
    before = _cells()
    for box in boxes:
        await value(box, TWENTY[language], language)
    weighed = [private_kib(pid) for pid in _cells() - before]
    bench.record(name, weighed, "MB", scale=1024 / 1e6)
    for box in boxes:
        await made.driver.destroy(box.id)


def _cells() -> set[int]:
    names = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid for pid in map(int, names) if _is_cell(pid)}


def _is_cell(pid: int) -> bool:
    """Whether it is of a process namespace that is not ours, and has no child."""
    try:
        inner = Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
        return inner and not Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
    except OSError:
        return False


def private_kib(pid: int) -> float:
    """Return what a process has for itself, with its page tables."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    private = int(fields["Private_Clean"]) + int(fields["Private_Dirty"]) + int(fields["Swap"])
    status = Path(f"/proc/{pid}/status").read_text()
    tables = next(line.split()[1] for line in status.splitlines() if line.startswith("VmPTE:"))
    return private + int(tables)


async def measure_rate(bench: Bench, made: Isolates) -> None:
    """Isolates made, each giving its first result, a few at a time, in a second."""
    count = bench.times(2000, 300)
    left = iter(range(count))

    async def makes() -> None:
        for _ in left:
            await made.first_result("javascript")

    before = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(makes())
    bench.record("creates_per_s", [count / (time.perf_counter() - before)], "1/s", at_once=4)


async def measure_kill(bench: Bench, made: Isolates) -> None:
    """From the moment at which a loop without end has used its time until its end is known."""
    box = await made.create()
    limits = CodeLimits(cpu_ms=20)
    late = []
    for _ in range(bench.times(300, 40)):
        await value(box, TRIVIAL["javascript"], "javascript", fresh=False)
        before = time.perf_counter()
        done = await box.run_code(CodeRequest(code="for (;;) {}", limits=limits))
        if done.error is None or done.error.limit is None:
            raise RuntimeError(f"the loop was not ended: {done}")
        late.append(time.perf_counter() - before - limits.cpu_ms / 1000)
    ordered = sorted(late)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    bench.record("kill_ms", late, "ms", scale=1000)
    bench.record("kill_p99_ms", [p99], "ms", scale=1000, of=len(late))
    await made.driver.destroy(box.id)


async def measure_crowd(bench: Bench, made: Isolates) -> None:
    """Many that live, each having run code; then some of them at random."""
    wanted = bench.times(10_000, 500)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = wanted + 1000  # a socket each; none opened its workspace
    if hard < needed:
        raise Skip(f"the limit of open files is {hard}; {needed} are needed")
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    if most < needed:
        raise Skip(f"kernel.pid_max is {most}; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = _available_mib()
    if before < wanted * 1.2:
        raise Skip(f"{before:.0f} MiB of memory are free; {wanted * 1.2:.0f} are needed")
    boxes = []
    for _ in range(wanted):
        boxes.append(await made.create())
        await value(boxes[-1], TRIVIAL["javascript"], "javascript")
    used = before - _available_mib()
    bench.record("live_isolates", [float(wanted)], "count", mib_together=round(used))
    bench.record("live_isolate_mib", [used / wanted], "MiB")
    seconds = []
    for at in range(bench.times(2000, 300)):
        box = boxes[at * 7919 % wanted]
        began = time.perf_counter()
        await value(box, TRIVIAL["javascript"], "javascript")
        seconds.append(time.perf_counter() - began)
    bench.record("live_woken_ms", seconds, "ms", scale=1000)


def _available_mib() -> float:
    text = Path("/proc/meminfo").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if "MemAvailable" in line)) / 1024
