"""What a tier may lack, by name; whatever else it lacks is a fault. Pure."""

from collections.abc import Collection, Mapping

import msgspec

ON_THIS_KERNEL = ("namespace", "gvisor")
"""The tiers without a machine of their own."""


class Lack(msgspec.Struct, frozen=True, kw_only=True):
    """Whose fault it is not: these tiers', everywhere, or only where an ordinary user runs them."""

    tiers: Collection[str] = ON_THIS_KERNEL
    rootless: bool = False


MAY_LACK: Mapping[str, Lack] = {
    # Without a machine's memory there is nothing for processes to live on in.
    "processes live on through a sleep": Lack(),
    # An ordinary user has one host id to give, so that root is alone in a sandbox.
    "another user is another user": Lack(rootless=True),
    # Only what lies on a disk of its own, which takes root there, is copied at one moment; else a
    # snapshot is forked instead.
    "forks have the files and are apart": Lack(rootless=True),
    "a fork outlives what it is of": Lack(rootless=True),
}
"""By the name of the check that finds it out."""


def may_lack(tier: str, check: str, *, root: bool) -> bool:
    """Say whether a tier may lack what a check looks for, run by root or by an ordinary user."""
    lack = MAY_LACK.get(check)
    return lack is not None and tier in lack.tiers and not (lack.rootless and root)
