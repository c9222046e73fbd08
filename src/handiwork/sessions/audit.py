"""Brings the store's audit index up to date with the segments that the proxy writes."""

import asyncio
from pathlib import Path

from handiwork.egress.audit import read_segment
from handiwork.observe import log
from handiwork.store.protocol import Audit

INTERVAL_SECONDS = 0.5
BATCH_RECORDS = 2000


class AuditIndex:
    """Reads what is new in each segment and appends it; one refresh at a time."""

    def __init__(self, directory: Path, audit: Audit) -> None:
        self._directory = directory
        self._audit = audit
        self._turn = asyncio.Lock()
        self._log = log.get("audit")

    async def refresh(self) -> int:
        """Index what is new and return how many records that was."""
        async with self._turn:
            positions = await self._audit.positions()
            count = 0
            for path in sorted(self._directory.glob("*.jsonl")):
                count += await self._segment(path, positions.get(path.name, 0))
            return count

    async def _segment(self, path: Path, position: int) -> int:
        if path.stat().st_size <= position:
            return 0
        records, end = read_segment(path, position)
        for start in range(0, len(records), BATCH_RECORDS):
            last = start + BATCH_RECORDS >= len(records)
            await self._audit.append(
                records[start : start + BATCH_RECORDS],
                segment=path.name,
                position=end if last else position,
            )
        return len(records)

    async def run(self) -> None:
        """Refresh for ever; a segment that cannot be read is told once a round."""
        while True:
            try:
                await self.refresh()
            except OSError as error:
                self._log.error("audit segment unreadable", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)
