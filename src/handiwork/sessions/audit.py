"""Brings the store's audit index up to date with the segments that the proxy writes."""

import asyncio
from pathlib import Path

from handiwork.egress.audit import read_segment
from handiwork.observe import log
from handiwork.store.protocol import Audit

INTERVAL_SECONDS = 0.5


class AuditIndex:
    """Reads what is new in each segment and appends it; one refresh at a time."""

    def __init__(self, directory: Path, audit: Audit) -> None:
        self._directory = directory
        self._audit = audit
        self._turn = asyncio.Lock()
        self._told: dict[str, str] = {}
        self._log = log.get("audit")

    async def refresh(self) -> int:
        """Index what is new and return how many records that was.

        A segment that was cut or changed is told in the log and left out; the others go on.
        """
        async with self._turn:
            positions = await self._audit.positions()
            count = 0
            for path in sorted(self._directory.glob("*.jsonl")):
                try:
                    count += await self._segment(path, positions.get(path.name, 0))
                except OSError as error:
                    self._tell(path.name, str(error))
            return count

    async def _segment(self, path: Path, position: int) -> int:
        count = 0
        while path.stat().st_size != position:
            records, end = read_segment(path, position)
            if end == position:
                break
            await self._audit.append(records, segment=path.name, position=end)
            count, position = count + len(records), end
        return count

    def _tell(self, segment: str, reason: str) -> None:
        if self._told.get(segment) != reason:
            self._told[segment] = reason
            self._log.error("audit segment unreadable", segment=segment, reason=reason)

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(INTERVAL_SECONDS)
