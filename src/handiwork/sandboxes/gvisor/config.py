"""What runsc is told: its flags and the OCI configuration of one sandbox. Pure."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from handiwork.model.sandbox import Limits, SandboxSpec

AGENT = "/dev/.handiwork-guest"
"""Where the agent's program is put for its start; it takes itself away from there."""

SHM_MIB = 64
PLATFORMS = ("systrap", "ptrace", "kvm")
"""In the order in which they are tried; KVM last, as a broken one is told by its deadline only."""

_CAPABILITIES = (
    # what guests keep, as in every tier
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID", "CAP_SETGID"),
    *("CAP_SETFCAP", "CAP_KILL", "CAP_NET_BIND_SERVICE"),
    # what the agent needs until it serves: network, its own mounts, dropping the rest; then marks
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_SYS_RESOURCE"),
)
_NAMESPACES = ("pid", "ipc", "uts", "mount", "network")

FLAGS: Sequence[tuple[str, str]] = (
    ("network", "none"),
    ("net-raw", "true"),  # the rules are set over a raw socket; guests have no capability for one
    ("ignore-cgroups", "true"),  # the launcher has put everything into the sandbox's own
    ("overlay2", "none"),  # the root file system is an overlay already, and its upper is state
    ("host-uds", "none"),
    ("host-fifo", "none"),
)


def runsc_flags(platform: str, known: Collection[str]) -> list[str]:
    """Return the flags for a runsc that knows these; those that only newer ones know are left out."""
    wanted = [("platform", platform), *(flag for flag in FLAGS if flag[0] in known)]
    return [f"--{name}={value}" for name, value in wanted]


def oci_config(spec: SandboxSpec, *, ranged: bool, ahead: bool = False) -> bytes:
    """Return the configuration of one sandbox, as JSON.

    With a range of ids gVisor runs as that range's nobody, its file server as its root; with one id
    (`ranged` False) all of it is that one. One that is made `ahead` waits for a claim before it serves.
    """
    limits = spec.limits
    document = {
        "ociVersion": "1.0.0",
        "hostname": spec.hostname,
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [
                AGENT,
                "serve",
                *(("--await-claim",) if ahead else ()),
                *_agent_limits(limits),
            ],
            "env": [],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": limits.open_files, "soft": limits.open_files}
            ],
        },
        "root": {"path": "/rootfs"},
        "mounts": _mounts(limits),
        "linux": _linux(ranged=ranged),
    }
    return msgspec.json.encode(document)


def _linux(*, ranged: bool) -> Mapping[str, object]:
    names = _NAMESPACES if ranged else (*_NAMESPACES, "user")
    one = [{"containerID": 0, "hostID": 0, "size": 1}]
    maps = {} if ranged else {"uidMappings": one, "gidMappings": one}
    return {"namespaces": [{"type": name} for name in names], **maps}


def _agent_limits(limits: Limits) -> list[str]:
    return ["--nofile", str(limits.open_files), "--fsize-mib", str(limits.file_size_mib)]


def _mounts(limits: Limits) -> list[Mapping[str, object]]:
    still = ["nosuid", "nodev", "noexec"]
    return [
        _mount("/proc", "proc", still),
        _mount("/dev", "tmpfs", ["nosuid", "mode=755"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec"]),
        _mount("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777", f"size={SHM_MIB}m"]),  # noqa: S108  a place inside
        _mount("/sys", "tmpfs", ["ro", *still, "mode=555", "size=4k"]),
        _mount("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777", f"size={limits.tmp_mib}m"]),  # noqa: S108  a place inside
        {"destination": AGENT, "type": "bind", "source": "/guest", "options": ["ro", "nodev"]},
    ]


def _mount(place: str, kind: str, options: list[str]) -> Mapping[str, object]:
    return {"destination": place, "type": kind, "source": kind, "options": options}
