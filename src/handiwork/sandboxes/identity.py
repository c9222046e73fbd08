"""What a machine calls itself in its own files: new where these were another's."""

import contextlib
from collections.abc import Callable

from handiwork.model.errors import GuestError
from handiwork.sandboxes.protocol import Files

MACHINE_ID = "/etc/machine-id"


async def renew_machine_id(files: Files, entropy: Callable[[int], bytes]) -> None:
    """Write another one where image or software keeps one; GuestError when it cannot be written."""
    there = False
    with contextlib.suppress(GuestError):
        await files.stat(MACHINE_ID, follow=False)
        there = True
    if there:
        await files.write(MACHINE_ID, entropy(16).hex().encode() + b"\n", mode=0o444)
