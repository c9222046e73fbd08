"""The health of the host: what no guest may change, and what it must still be able to do."""

import ctypes
import os
import platform
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path

SETTINGS = (
    *("kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/panic", "kernel/sysrq"),
    *("kernel/random/boot_id", "kernel/unprivileged_bpf_disabled"),
    *(
        "fs/suid_dumpable",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
        "kernel/randomize_va_space",
    ),
)
CLOCK_SLACK_SECONDS = 30.0
ROOM = 0.05
"""The share of the host's memory, process ids and open files that must stay free."""


@dataclass(frozen=True)
class Vitals:
    """What stays the same, whoever else works on this host."""

    hostname: str
    domain: str
    settings: tuple[str, ...]
    swaps: str
    first_process: str
    devices: tuple[str, ...]


def taken() -> Vitals:
    """Return those of now."""
    return Vitals(
        hostname=platform.node(),
        domain=_text("/proc/sys/kernel/domainname"),
        settings=tuple(_text(f"/proc/sys/{name}") for name in SETTINGS),
        swaps=_text("/proc/swaps"),
        first_process=_text("/proc/1/stat").rpartition(")")[2].split()[19],
        devices=tuple(sorted(one.name for one in Path("/sys/class/net").iterdir())),
    )


def clock() -> float:
    """Return by how much the wall clock is ahead of the one that nobody sets."""
    return time.time() - time.monotonic()


def harms(before: Vitals, after: Vitals) -> list[str]:
    """Name what changed."""
    changed = [
        one.name
        for one in fields(Vitals)
        if one.name != "devices" and getattr(before, one.name) != getattr(after, one.name)
    ]
    return changed + [f"device {one}" for one in before.devices if one not in after.devices]


def shortages() -> list[str]:
    """Name what the host has too little of, or cannot do any more; tells by doing."""
    memory = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines())
    available, total = (int(memory[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    files, _, most_files = map(int, _text("/proc/sys/fs/file-nr").split())
    processes = sum(one.name.isdigit() for one in Path("/proc").iterdir())
    shares = {
        "memory": 1 - available / total,
        "open files": files / most_files,
        "process ids": processes / int(_text("/proc/sys/kernel/pid_max")),
    }
    found = [f"{name}: {share:.0%} used" for name, share in shares.items() if share > 1 - ROOM]
    return found + [name for name, able in _ABILITIES.items() if not able()]


def _can_start() -> bool:
    return subprocess.run(["true"], check=False, timeout=50).returncode == 0


def _can_watch() -> bool:
    instance = ctypes.CDLL(None).inotify_init1(0)
    return instance >= 0 and os.close(instance) is None


def _can_open_terminals() -> bool:
    try:
        pair = os.openpty()
    except OSError:
        return False
    for one in pair:
        os.close(one)
    return True


_ABILITIES = {
    "starting a process": _can_start,
    "watching files": _can_watch,
    "opening a terminal": _can_open_terminals,
}


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
