"""Writing the disks of new states out while nobody waits; until then they count in one boot alone."""

import contextlib

from handiwork.observe import log
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.fresh_copies import FreshCopy
from handiwork.sandboxes.states import States

_LOG = log.get("sandboxes")
AFTER_SECONDS = 1.0
"""So long a copy lies in memory alone: whoever makes one mostly mounts it next."""


class Flushing:
    """That of one driver; what fails is logged, and tried again when its sandbox falls asleep."""

    def __init__(self, states: States, copying: Copying) -> None:
        self._states = states
        self._copying = copying

    def later(
        self, sandbox_id: str, copy: FreshCopy | None = None, *, mounted: bool = False
    ) -> None:
        """Flush the disk of a state that has just come to be, and may be such a copy.

        `mounted`: it is, and asks for flushes itself. No-op where that was done.
        """
        if not self._states.is_flushed(sandbox_id):
            self._copying.later(
                lambda: self._flush(sandbox_id, copy, mounted=mounted),
                lambda why: _LOG.warning("its disk is not flushed", sandbox=sandbox_id, reason=why),
                seconds=AFTER_SECONDS if copy is not None else 0.0,
            )

    def _flush(self, sandbox_id: str, copy: FreshCopy | None, *, mounted: bool) -> None:
        self._states.write_out(sandbox_id)
        settled = copy is not None and copy.settle()
        with contextlib.suppress(BlockingIOError):  # somebody has it by now, and flushes it
            self._states.flush(sandbox_id, mounted=mounted or settled)
