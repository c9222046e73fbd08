"""One running sandbox of the namespace tier, as its driver hands it out."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.commands import parse_user
from handiwork.sandboxes.guest_client import GuestSandbox


class NamespaceSandbox(GuestSandbox):
    """One running sandbox of this tier; rootless it has one user, root."""

    def __init__(
        self,
        sandbox_id: str,
        channel: Channel,
        env: Mapping[str, str],
        *,
        ranged: bool,
        still: Callable[[], AbstractAsyncContextManager[None] | None],
    ) -> None:
        """`still` gives the freezer of its control group, None where there is none."""
        super().__init__(sandbox_id, channel, env)
        self._ranged = ranged
        self._freezer = still

    def check(self, request: ExecRequest) -> None:
        """Refuse another user than root where there is none: UnsupportedError."""
        if not self._ranged and parse_user(request.user) != (0, 0):
            raise UnsupportedError(
                "a sandbox of an ordinary user has the one user 'root': start Handiwork as root"
                f" to run commands as {request.user[:40]!r}"
            )

    def _kernel_freezer(self) -> AbstractAsyncContextManager[None] | None:
        """Return the freezer of its control group, where there is one."""
        freezer = self._freezer()
        return None if freezer is None else _without_clock(self._channel, freezer)


@asynccontextmanager
async def _without_clock(
    channel: Channel, freezer: AbstractAsyncContextManager[None]
) -> AsyncIterator[None]:
    """Freeze; the agent is frozen too, so that what it owes us is not late meanwhile."""
    channel.deadlines.pause()
    try:
        async with freezer:
            yield
    finally:
        channel.deadlines.resume()
