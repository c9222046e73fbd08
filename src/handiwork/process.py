"""What a process of ours does first: take its own host id, become unreadable to others.

As root each process starts as root, so that it can read a Python that lies where only root may
go, and drops to its own id once everything it will ever import is imported.
"""

import ctypes
import os
import resource
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 63


def drop_to(user: int) -> None:
    """Become the host id for good: its group, no others, no way back. Needs root."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def harden(*, keep_capabilities: Iterable[int] = (), may_gain: bool = False) -> None:
    """Make memory and descriptors unreadable to others of the same id; leave no core dump.

    As root the bounding set is cut to what is kept. `may_gain` leaves set-id programs their
    meaning, which only a process that starts launchers needs.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        for capability in set(range(_LAST_CAPABILITY + 1)) - set(keep_capabilities):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if not may_gain:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
