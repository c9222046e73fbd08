"""What this host can carry: proven by running the guest program's own probe, explained for people.

`doctor` prints the findings; a start that needs what is missing fails by itself.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import Limits
from handiwork.sandboxes.cgroups import Cgroups, parse_mounts
from handiwork.sandboxes.host import capture

PROBE_SECONDS = 20.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a host has or lacks; `fix` says what to do when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that tell what kind of host this is; texts are files of /proc, "" when absent."""

    root_is_real: bool
    docker_marker: bool
    status: str = ""
    mountinfo: str = ""
    userns_limit: str = ""
    userns_clone: str = ""
    apparmor_restricts: str = ""


FIXES = {
    "userns": "allow user namespaces: sysctl user.max_user_namespaces=15000",
    "overlay": "use Linux 5.11 or later, where overlay mounts work inside user namespaces",
    "nftables": "load the kernel module nf_tables: modprobe nf_tables nft_redir nft_reject",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER",
    "idmap": "use Linux 5.19 or later and a file system with idmapped mounts (ext4, xfs, btrfs)",
    "pidns": "use a kernel with CONFIG_PID_NS",
    "timens": "use Linux 5.6 or later with CONFIG_TIME_NS, and sysctl user.max_time_namespaces=15000",
}


NO_GROUPS = "start Handiwork as root; without control groups memory and cpu are not limited"


def read_host(root: Path = Path("/")) -> Host:
    """Read the facts; blocks briefly."""
    proc = root / "proc"
    init_root, own_root = _identity(proc / "1/root"), _identity(root)
    return Host(
        root_is_real=init_root is None or init_root == own_root,
        docker_marker=(root / ".dockerenv").exists(),
        status=_text(proc / "self/status"),
        mountinfo=_text(proc / "self/mountinfo"),
        userns_limit=_text(proc / "sys/user/max_user_namespaces"),
        userns_clone=_text(proc / "sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=_text(proc / "sys/kernel/apparmor_restrict_unprivileged_userns"),
    )


async def probe(guest_agent: Path, read: Callable[[], Host] = read_host) -> list[Finding]:
    """Run the guest program's probe and explain what it found."""
    code, output = await capture([str(guest_agent), "probe"], PROBE_SECONDS)
    proven = parse_probe(output)
    if not proven:
        proven = {"probe": f"ended with {code} and said nothing"}
    return explain(proven, read())


async def probe_groups(
    read: Callable[[], Host] = read_host, groups: Cgroups | None = None
) -> Finding:
    """Make a control group with the usual limits, and remove it; tells what it limits."""
    name = f"handiwork-doctor-{os.getpid()}"
    groups = groups or Cgroups(name)
    try:
        groups.make(name, Limits())
    except (OSError, SandboxUnavailableError) as error:
        return explain_groups(read(), groups, str(error))
    finally:
        await groups.remove(name)
    return explain_groups(read(), groups)


def has_own_clocks(proc: Path = Path("/proc")) -> bool:
    """Say whether a sandbox's clocks count from its own start: there are time namespaces, and not 0 of them."""
    limit = _text(proc / "sys/user/max_time_namespaces").strip()
    return (proc / "self/ns/time").exists() and limit not in {"", "0"}


def parse_probe(output: str) -> Mapping[str, str]:
    """Return the reason by name, "" where it works; lines of another form are passed over."""
    found = {}
    for line in output.splitlines():
        name, _, rest = line.partition(" ")
        verdict, _, reason = rest.partition(" ")
        if verdict in {"ok", "failed"}:
            found[name] = "" if verdict == "ok" else reason or "no reason was told"
    return found


def explain(proven: Mapping[str, str], host: Host) -> list[Finding]:
    """Return the findings: what kind of host, and each proof. Pure."""
    broken = proven.get("userns", "no proof")
    kind, detail, fix = _kind(host, broken)
    findings = [Finding(name="host", ok=not fix, detail=f"{kind}: {detail}", fix=fix)]
    for name, reason in proven.items():
        advice = (fix or _userns_fix(host)) if name == "userns" else FIXES.get(name, "")
        findings.append(
            Finding(
                name=name, ok=not reason, detail=reason or "works", fix=advice if reason else ""
            )
        )
    return findings


def _kind(host: Host, userns_broken: str) -> tuple[str, str, str]:
    """Name the host from outside in: what filters calls comes before where the root lies."""
    filtered = "Seccomp:\t2" in host.status
    if host.docker_marker and filtered:
        return (
            "Docker with its default seccomp profile",
            "namespaces and mounts are filtered",
            ""
            if not userns_broken
            else "run it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --security-opt systempaths=unconfined, or on the machine itself",
        )
    if _is_chroot(host, userns_broken, filtered=filtered):
        return (
            "chroot",
            "the root directory is not the root of its mounts, so user namespaces are refused",
            "" if not userns_broken else "enter the tree by pivot_root instead of chroot",
        )
    return ("plain Linux", "nothing stands in the way", "")


def _is_chroot(host: Host, userns_broken: str, *, filtered: bool) -> bool:
    """A bind-mounted root looks like any other; but nothing else refuses user namespaces then.

    The kernel's EPERM without a filter, a limit or AppArmor has one cause left: user_namespaces(7).
    """
    if not host.root_is_real or not _has_root_mount(host.mountinfo):
        return True
    explained = (
        filtered
        or host.apparmor_restricts.strip() == "1"
        or host.userns_clone.strip() == "0"
        or host.userns_limit.strip() in {"", "0"}
    )
    return "Operation not permitted" in userns_broken and not explained


def _userns_fix(host: Host) -> str:
    if host.apparmor_restricts.strip() == "1":
        return (
            "AppArmor restricts user namespaces: sysctl"
            " kernel.apparmor_restrict_unprivileged_userns=0, or start Handiwork as root"
        )
    if host.userns_clone.strip() == "0":
        return "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    if host.userns_limit.strip() in {"", "0"}:
        return FIXES["userns"] + "; an empty answer means a kernel without CONFIG_USER_NS"
    return FIXES["userns"]


def explain_groups(host: Host, groups: Cgroups, reason: str = "") -> Finding:
    """Return the finding on control groups: those of the host, and what ours limit. Pure."""
    mounts = parse_mounts(host.mountinfo)
    versions = {mount.version for mount in mounts if mount.version == 2 or mount.controllers}
    names = {(): "none", (1,): "version 1", (2,): "version 2", (1, 2): "hybrid"}
    there = names[tuple(sorted(versions))]
    if groups.limits and not reason:
        held = ", ".join(groups.limits)
        return Finding(name="cgroups", ok=True, detail=f"{there}, limiting {held}")
    detail = there + (f": {reason}" if reason else ", in which no group can be made")
    fix = NO_GROUPS if versions else "mount /sys/fs/cgroup, or do without memory and cpu limits"
    return Finding(name="cgroups", ok=False, detail=detail if versions else there, fix=fix)


def _has_root_mount(mountinfo: str) -> bool:
    return any(line.split()[4:5] == ["/"] for line in mountinfo.splitlines())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
