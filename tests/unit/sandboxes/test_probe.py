"""What a host is called and what is said to do, for hosts of every kind."""

import os

import msgspec
import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import namespace, probe
from handiwork.sandboxes.cgroups import Cgroups
from handiwork.sandboxes.probe import Host

MOUNTS = (
    "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
UNIFIED = "27 1 254:0 / / rw - ext4 /dev/vda rw\n41 31 0:38 / /sys/fs/cgroup rw - cgroup2 x rw\n"
PLAIN = Host(root_is_real=True, docker_marker=False, mountinfo=MOUNTS, userns_limit="1000\n")
WORKS = {"userns": "", "overlay": "", "nftables": ""}
NO_USERNS = {**WORKS, "userns": "Operation not permitted"}


def told(proven, **facts):
    fields = {name: getattr(PLAIN, name) for name in Host.__struct_fields__}
    return {found.name: found for found in probe.explain(proven, Host(**{**fields, **facts}))}


def test_probe_lines_are_read():
    text = "userns ok\nnftables failed Protocol not supported\ngarbage\nidmap failed\n\n"
    assert probe.parse_probe(text) == {
        "userns": "",
        "nftables": "Protocol not supported",
        "idmap": "no reason was told",
    }


def test_own_clocks_need_the_kernel_and_room(tmp_path):
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "sys/user").mkdir(parents=True)
    assert not probe.has_own_clocks(tmp_path)
    (tmp_path / "self/ns/time").touch()
    (tmp_path / "sys/user/max_time_namespaces").write_text("0\n")
    assert not probe.has_own_clocks(tmp_path)
    (tmp_path / "sys/user/max_time_namespaces").write_text("96364\n")
    assert probe.has_own_clocks(tmp_path)


def test_a_plain_host():
    found = told(WORKS)
    assert all(finding.ok and not finding.fix for finding in found.values())
    assert found["host"].detail.startswith("plain Linux")


def test_a_chroot_is_named():
    for facts in ({"root_is_real": False}, {"mountinfo": "30 1 0:1 / /proc rw - proc proc rw\n"}):
        found = told(NO_USERNS, **facts)
        assert found["host"].detail.startswith("chroot")
        assert "pivot_root" in found["host"].fix
        assert not found["host"].ok


def test_a_chroot_into_a_mount_is_named_by_what_it_refuses():
    assert told(NO_USERNS, docker_marker=True)["host"].detail.startswith("chroot")
    for facts in ({"apparmor_restricts": "1\n"}, {"userns_limit": "0\n"}, {"userns_clone": "0\n"}):
        assert not told(NO_USERNS, **facts)["host"].detail.startswith("chroot")
    limited = {**WORKS, "userns": "unshare: No space left on device"}
    assert not told(limited)["host"].detail.startswith("chroot")


def test_default_docker_is_named():
    found = told(NO_USERNS, docker_marker=True, status="Seccomp:\t2\n")
    assert "Docker" in found["host"].detail
    assert "seccomp=unconfined" in found["userns"].fix


def test_a_docker_where_it_works_is_no_fault():
    assert told(WORKS, docker_marker=True)["host"].ok


def test_each_lack_says_what_to_do():
    assert "AppArmor" in told(NO_USERNS, apparmor_restricts="1\n")["userns"].fix
    assert "unprivileged_userns_clone=1" in told(NO_USERNS, userns_clone="0\n")["userns"].fix
    assert "CONFIG_USER_NS" in told(NO_USERNS, userns_limit="")["userns"].fix
    assert "modprobe nf_tables" in told({**WORKS, "nftables": "x"})["nftables"].fix
    assert "5.11" in told({**WORKS, "overlay": "x"})["overlay"].fix


class Groups:
    """Control groups that limit so much; making one fails for a reason."""

    def __init__(self, limits=(), fault=None):
        self.limits, self.fault = limits, fault
        self.removed = []

    def make(self, leaf, limits):
        if self.fault:
            raise self.fault
        return []

    async def remove(self, leaf):
        self.removed.append(leaf)


async def of_groups(mountinfo, **held):
    groups = Groups(**held)
    host = msgspec.structs.replace(PLAIN, mountinfo=mountinfo)
    found = await probe.probe_groups(lambda: host, groups)
    assert len(groups.removed) == 1
    return found


async def test_control_groups_are_named_by_what_they_limit():
    for mountinfo, name in (
        (MOUNTS, "version 1"),
        (UNIFIED, "version 2"),
        (MOUNTS + UNIFIED, "hybrid"),
    ):
        found = await of_groups(mountinfo, limits=("memory", "pids"))
        assert (found.ok, found.fix) == (True, "")
        assert found.detail == f"{name}, limiting memory, pids"


async def test_control_groups_that_limit_nothing_say_what_to_do():
    found = await of_groups(UNIFIED)
    assert (found.ok, found.detail) == (False, "version 2, in which no group can be made")
    assert "as root" in found.fix
    fault = SandboxUnavailableError("the limit memory.max cannot be set")
    found = await of_groups(MOUNTS, limits=("memory",), fault=fault)
    assert (found.ok, found.detail) == (False, "version 1: the limit memory.max cannot be set")
    found = await of_groups(UNIFIED.splitlines()[0])
    assert (found.ok, found.detail) == (False, "none")
    assert "mount /sys/fs/cgroup" in found.fix


@pytest.mark.root
async def test_a_control_group_of_this_host_is_made_and_removed():
    found = await probe.probe_groups()
    assert found.ok, found
    assert "memory" in found.detail
    name = f"handiwork-doctor-{os.getpid()}"
    assert not any((parent.parent / name).exists() for parent, _, _ in Cgroups(name).parents)


async def test_this_host():
    found = await probe.probe(namespace.DEFAULT_AGENT)
    assert {finding.name for finding in found} >= {"host", "userns", "overlay", "nftables"}


async def test_a_program_that_says_nothing(tmp_path):
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\nexit 4\n")
    agent.chmod(0o755)
    found = await probe.probe(agent, lambda: PLAIN)
    assert any(not finding.ok and "said nothing" in finding.detail for finding in found)
