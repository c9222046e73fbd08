"""Whether this host can carry isolates: what is missing for them, and the proof by running code in some."""

import asyncio
import platform
from collections.abc import Mapping
from pathlib import Path

from handiwork.model.code import LANGUAGES, CodeRequest, Language
from handiwork.model.errors import HandiworkError, UnsupportedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.isolate.filters import MACHINES
from handiwork.sandboxes.isolate.room import read_room
from handiwork.sandboxes.isolate.zygotes import PROGRAM
from handiwork.sandboxes.probe import Finding

PROBE_ID = "check_isolateprobe"
ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")
NEEDED = ("kill_process", "errno", "allow")
"""What a filter of ours answers: a kernel that knows less would hold less."""
_CODE: Mapping[Language, str] = {
    "javascript": "6 * 7",
    "python": "6 * 7",
    "bash": "eval 'echo $((6 * 7))'",
}
FIX = "use another tier, or a host that has what is missing"


def check(
    *,
    system: str = platform.system(),
    machine: str = platform.machine(),
    actions: Path = ACTIONS,
    program: Path = PROGRAM,
) -> None:
    """Raise UnsupportedError where no cell can be caged as it must be: there is none in a weaker cage."""
    if system != "Linux":
        raise UnsupportedError(
            f"the isolate tier locks its cells by seccomp, which {system} has not: it needs Linux"
        )
    if machine not in MACHINES:
        raise UnsupportedError(
            f"the isolate tier has no filter for {machine}; it runs on {', '.join(MACHINES)}"
        )
    known = actions.read_text().split() if actions.is_file() else []
    missing = [one for one in NEEDED if one not in known]
    if missing:
        raise UnsupportedError(
            "the isolate tier locks its cells by seccomp, and this kernel cannot"
            f" ({', '.join(missing)}): use one with CONFIG_SECCOMP_FILTER"
        )
    if not program.is_file():
        raise UnsupportedError(
            f"the program of the isolate tier is not there ({program.name}): install a wheel of"
            " Handiwork, or build it with `./run check`"
        )


async def examine(driver: IsolateDriver) -> Finding:
    """Run code of each language in an isolate, and end it."""
    spec = SandboxSpec(id=PROBE_ID)
    try:
        check()
        box = await driver.create(spec)
        try:
            for language in LANGUAGES:
                ended = await box.run_code(CodeRequest(code=_CODE[language], language=language))
                if ended.error is not None or b"42" not in ended.value_json:
                    return _lacking(f"{language} gave {ended.error or ended.value_json!r}")
            holds = await driver.protections()
        finally:
            await driver.destroy(spec.id)
    except HandiworkError as error:
        return _lacking(str(error))
    lacks = [name for name, held in holds.items() if not held]
    weaker = f"; not on this host: {', '.join(lacks)}" if lacks else ""
    room = (await asyncio.to_thread(read_room)).told()
    how = f"runs {', '.join(LANGUAGES)} in cells locked by seccomp{weaker}; {room}"
    return Finding(name="isolate", ok=True, detail=how)


def _lacking(detail: str) -> Finding:
    return Finding(name="isolate", ok=False, detail=detail, fix=FIX)
