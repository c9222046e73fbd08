"""Whether this host can carry gVisor's sandboxes: proven by running a command in one."""

from pathlib import Path
from typing import Protocol

from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.probe import Finding
from handiwork.sandboxes.protocol import Driver

PROBE_ID = "check_gvisorprobe"
NONE = Finding(
    name="gvisor",
    ok=False,
    detail="there is no runsc",
    fix="install Debian's runsc, or set gvisor.runsc",
)
ANOTHER = (
    "see what gVisor said of each platform; a newer runsc (gvisor.runsc) or another platform"
    " (gvisor.platform) may run here"
)


class Runs(Protocol):
    """What a driver runs its sandboxes by."""

    runsc: Path
    platform: str


async def examine(driver: Driver, inside: Runs) -> Finding:
    """Make a sandbox, run one command in it and end it; `inside` is what the driver runs them by."""
    spec = SandboxSpec(id=PROBE_ID)
    try:
        box = await driver.create(spec)
        try:
            ended = await box.exec(ExecRequest(argv=("true",), cwd="/"))
        finally:
            await driver.destroy(spec.id)
    except HandiworkError as error:
        return Finding(name="gvisor", ok=False, detail=str(error), fix=ANOTHER)
    if ended.exit_code:
        detail = f"a sandbox was made, but `true` ended in it with {ended.exit_code}"
        return Finding(name="gvisor", ok=False, detail=detail, fix=ANOTHER)
    how = f"runs a sandbox by {inside.runsc} on its platform {inside.platform}"
    return Finding(name="gvisor", ok=True, detail=f"{how}; `handiwork selfcheck` proves more")
