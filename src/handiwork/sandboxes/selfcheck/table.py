"""The table of checks: each is one small function, entered by the `check` decorator."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from handiwork.model.code import CodeRequest
from handiwork.model.errors import GuestError
from handiwork.model.ids import new_id
from handiwork.model.sandbox import ExecRequest, ExecResult, SandboxSpec
from handiwork.sandboxes.protocol import Driver, Sandbox

Area = Literal["command", "shell", "files", "isolation", "life", "code"]
AREAS: Sequence[Area] = ("command", "shell", "files", "isolation", "life")
"""Of a tier that runs commands."""
CODE_AREAS: Sequence[Area] = ("code", "files", "life")
"""Of one that runs code."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check that was made; `detail` says what was wrong, where it is not `ok`.

    `lacks` says what the tier has not, by name, where it may lack it (`MAY_LACK`): nothing is wrong.
    """

    name: str
    area: Area
    ok: bool
    detail: str = ""
    lacks: str = ""


class Bench:
    """What a check works with: the driver, one shared sandbox, and sandboxes of its own."""

    def __init__(self, driver: Driver, entropy: Callable[[int], bytes]) -> None:
        self.driver = driver
        self.made: list[str] = []
        self._entropy = entropy
        self._shared: Sandbox | None = None
        self._making = asyncio.Lock()

    async def box(self) -> Sandbox:
        """Return the shared sandbox, making it when there is none."""
        async with self._making:
            if self._shared is None:
                self._shared = await self.driver.create(self.spec())
            return self._shared

    def spec(self) -> SandboxSpec:
        """Return the spec of one more sandbox, which is destroyed at the end."""
        sandbox_id = new_id("check", self._entropy(10))
        self.made.append(sandbox_id)
        return SandboxSpec(id=sandbox_id)

    async def run(self, *argv: str, stdin: bytes | None = None) -> ExecResult:
        """Run a program in the shared sandbox."""
        return await (await self.box()).exec(ExecRequest(argv=argv, cwd="/", stdin=stdin))

    async def shell(self, script: str, *, user: str = "root") -> ExecResult:
        """Run a script of `sh` in the shared sandbox."""
        request = ExecRequest(argv=("sh", "-c", script), user=user, cwd="/", timeout_seconds=60)
        return await (await self.box()).exec(request)

    async def works(self, box: Sandbox) -> bool:
        """Say whether a sandbox does something: a command, or code."""
        if box.languages:
            return bool((await box.run_code(CodeRequest(code="6 * 7"))).value == 42)
        return (await box.exec(ExecRequest(argv=("true",), cwd="/"))).exit_code == 0

    async def close(self) -> None:
        """Destroy every sandbox that was made."""
        for sandbox_id in self.made:
            await self.driver.destroy(sandbox_id)


CheckCall = Callable[[Bench], Awaitable[None]]
CHECKS: list[tuple[str, Area, CheckCall]] = []


def check(area: Area) -> Callable[[CheckCall], CheckCall]:
    """Enter a function in the table; its name, without underscores, is the check's."""

    def enter(call: CheckCall) -> CheckCall:
        CHECKS.append((call.__name__.strip("_").replace("_", " "), area, call))
        return call

    return enter


class Lacks(Exception):
    """The tier has no such thing, and said so by name; the text is what it said."""


class Refuted(AssertionError):
    """A check did not hold; the text says what was seen."""


def expect(seen: object, wanted: object, what: str) -> None:
    """Raise Refuted unless both are equal."""
    if seen != wanted:
        raise Refuted(f"{what}: {seen!r} instead of {wanted!r}"[:500])


def hold(condition: bool, what: str) -> None:
    """Raise Refuted unless the condition holds."""
    if not condition:
        raise Refuted(what[:500])


async def refused(awaitable: Awaitable[object], *numbers: int) -> None:
    """Expect a GuestError with one of these error numbers."""
    try:
        await awaitable
    except GuestError as error:
        hold(error.errno in numbers, f"error {error.errno} instead of {numbers}: {error}")
    else:
        raise Refuted(f"was done, though error {numbers} was expected")
