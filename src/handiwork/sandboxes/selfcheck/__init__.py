"""The contract suite that every tier passes, and that `doctor` runs on the operator's own host."""

import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from handiwork.model.errors import HandiworkError
from handiwork.process import is_root
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.selfcheck import (
    code,
    commands,
    connections,
    files,
    freezing,
    isolation,
    keeping,
    life,
    processes,
    terminals,
    trees,
    watching,
)
from handiwork.sandboxes.selfcheck.lacking import MAY_LACK, may_lack
from handiwork.sandboxes.selfcheck.table import (
    AREAS,
    CHECKS,
    CODE_AREAS,
    Area,
    Bench,
    Check,
    CheckCall,
    Lacks,
    Refuted,
)

__all__ = [
    "AREAS",
    "CODE_AREAS",
    "MAY_LACK",
    "Area",
    "Check",
    "may_lack",
    "names",
    "selfcheck",
    "summary",
]

_PARTS = (
    code,
    commands,
    connections,
    files,
    freezing,
    isolation,
    keeping,
    life,
    processes,
    terminals,
    trees,
    watching,
)


def names(areas: Collection[Area] = AREAS) -> list[str]:
    """Return the name of every check of these areas, in order."""
    return [name for name, area, _ in CHECKS if area in areas]


def summary(checks: Sequence[Check]) -> str:
    """Return how many checks were passed, and how many look for what the tier may lack."""
    lacking = sum(bool(check.lacks) for check in checks)
    passed = sum(check.ok for check in checks) - lacking
    rest = f", {lacking} of what the tier may lack" if lacking else ""
    return f"{passed} of {len(checks)} checks passed{rest}"


async def selfcheck(
    driver: Driver,
    *,
    areas: Collection[Area] | None = None,
    only: Collection[str] | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[Check]:
    """Make the checks one after another, telling each when it is made; leaves nothing behind.

    `areas` None: those of its tier. A check that fails does not stop the others. What the tier lacks fails too, unless it may lack it.
    """
    if areas is None:
        areas = CODE_AREAS if driver.tier == "isolate" else AREAS
    bench = Bench(driver, entropy)
    try:
        for name, area, call in CHECKS:
            if area in areas and (only is None or name in only):
                yield await _made(name, area, call, bench)
    finally:
        await bench.close()


async def _made(name: str, area: Area, call: CheckCall, bench: Bench) -> Check:
    try:
        await call(bench)
    except Lacks as lack:
        if may_lack(bench.driver.tier, name, root=is_root()):
            return Check(name=name, area=area, ok=True, lacks=str(lack))
        return Check(name=name, area=area, ok=False, detail=f"UnsupportedError: {lack}")
    except (Refuted, HandiworkError, TimeoutError) as error:
        return Check(name=name, area=area, ok=False, detail=f"{type(error).__name__}: {error}")
    except ExceptionGroup as group:
        failed, others = group.split((HandiworkError, Refuted))
        if others is not None or failed is None:
            raise
        return Check(name=name, area=area, ok=False, detail=f"{failed.exceptions[0]}")
    return Check(name=name, area=area, ok=True)
