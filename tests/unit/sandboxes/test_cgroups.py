"""Finding our own group and setting limits, on trees that look like each version."""

from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import Limits
from handiwork.sandboxes import cgroups
from handiwork.sandboxes.cgroups import Cgroups, Mount

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
short line - x
"""


def test_mounts_are_read():
    assert cgroups.parse_mounts(HYBRID) == [
        Mount(Path("/sys/fs/cgroup/cpu"), "/", 1, ("cpu",)),
        Mount(Path("/sys/fs/cgroup/memory"), "/", 1, ("memory",)),
        Mount(Path("/sys/fs/cgroup/blkio"), "/", 1, ("blkio",)),
        Mount(Path("/sys/fs/cgroup/unified"), "/", 2, ()),
    ]


def test_own_group_is_found():
    membership = cgroups.parse_membership("4:memory:/a/b\n3:cpu,cpuacct:/\n0::/user.slice\n")
    memory, unified = Mount(Path("/m"), "/", 1, ("memory",)), Mount(Path("/u"), "/", 2, ())
    assert cgroups.own_group(memory, membership) == Path("/m/a/b")
    assert cgroups.own_group(unified, membership) == Path("/u/user.slice")
    inside = Mount(Path("/m"), "/a", 1, ("memory",))
    assert cgroups.own_group(inside, membership) == Path("/m/b")
    assert cgroups.own_group(Mount(Path("/p"), "/", 1, ("pids",)), membership) is None


@pytest.mark.parametrize("version", [1, 2])
def test_settings_name_every_limit(version):
    limits = Limits(memory_mib=10, pids=7, cpu_percent=50)
    found = dict(cgroups.settings(version, ("memory", "pids", "cpu"), limits))
    assert found["pids.max"] == "7"
    memory = "memory.max" if version == 2 else "memory.limit_in_bytes"
    assert found[memory] == str(10 << 20)
    assert "50000" in found["cpu.max" if version == 2 else "cpu.cfs_quota_us"]
    assert not dict(cgroups.settings(version, (), limits))


RATES = Limits(disk_read_mib_per_second=3, disk_write_mib_per_second=5)


def test_rates_name_the_device():
    assert dict(cgroups.rates(1, ("blkio",), RATES, ["7:3"])) == {
        "blkio.throttle.read_bps_device": f"7:3 {3 << 20}"
    }
    assert dict(cgroups.rates(2, ("memory", "io"), RATES, ["7:3"])) == {
        "io.max": f"7:3 rbps={3 << 20} wbps={5 << 20}"
    }
    assert not dict(cgroups.rates(2, ("memory",), RATES, ["7:3"]))
    both = [f"{one} rbps={3 << 20} wbps={5 << 20}" for one in ("7:3", "7:4")]
    assert [value for _, value in cgroups.rates(2, ("io",), RATES, ["7:3", "7:4"])] == both
    of_blkio = cgroups.rates(1, ("blkio",), RATES, ["7:3", "7:4"])
    assert [value for _, value in of_blkio] == [f"7:3 {3 << 20}", f"7:4 {3 << 20}"]
    assert not dict(cgroups.rates(2, ("io",), Limits(), ["7:3"]))


def found_in(tmp_path, kind, *controllers, throttle=True):
    """Groups of a hierarchy that looks as the kernel would make it."""
    root = tmp_path / "hierarchy"
    parent = root / "handiwork-test"
    parent.mkdir(parents=True)
    (parent / "kept").mkdir()  # leaves of a former run: the parent stays as it is made here
    if throttle:
        name = "io.max" if kind == "cgroup2" else "blkio.throttle.read_bps_device"
        (parent / name).touch()
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    if kind == "cgroup":
        info.write_text(f"1 1 0:1 / {root} rw - cgroup cgroup rw,{','.join(controllers)}\n")
        own.write_text(f"4:{','.join(controllers)}:/\n")
    else:
        for directory in (root, parent):
            (directory / "cgroup.subtree_control").write_text(" ".join(controllers))
        info.write_text(f"1 1 0:1 / {root} rw - cgroup2 cgroup2 rw\n")
        own.write_text("0::/\n")
    return Cgroups("handiwork-test", info, own)


@pytest.mark.parametrize(
    ("kind", "controllers", "held"),
    [
        ("cgroup", ("blkio",), {"read"}),
        ("cgroup", ("memory",), set()),
        ("cgroup2", ("memory", "io"), {"read", "write"}),
        ("cgroup2", ("io",), {"read"}),
        ("cgroup2", ("memory",), set()),
    ],
)
def test_what_rates_hold(tmp_path, monkeypatch, kind, controllers, held):
    monkeypatch.setattr(cgroups, "_write", lambda path, value: None)
    assert found_in(tmp_path, kind, *controllers).rates == held


@pytest.mark.parametrize(("kind", "controller"), [("cgroup", "blkio"), ("cgroup2", "io")])
def test_without_throttling_no_rate_holds(tmp_path, monkeypatch, kind, controller):
    monkeypatch.setattr(cgroups, "_write", lambda path, value: None)
    assert found_in(tmp_path, kind, "memory", controller, throttle=False).rates == set()


def test_a_leaf_for_rates_is_made_only_where_they_are_asked_for(tmp_path):
    found = found_in(tmp_path, "cgroup", "blkio")
    assert found.limits == ()
    assert found.make("one", Limits()) == []
    (leaf,) = found.make("one", RATES, ["7:3"])
    assert (leaf / "blkio.throttle.read_bps_device").read_text() == f"7:3 {3 << 20}"


def test_a_rate_that_does_not_hold_is_refused():
    cgroups.refuse_rates(Limits(), ())
    cgroups.refuse_rates(RATES, {"read", "write"})
    with pytest.raises(UnsupportedError, match=r"disk_write_mib_per_second.*version 2 with memory"):
        cgroups.refuse_rates(RATES, {"read"})


async def test_leaves_are_made_and_removed(tmp_path):
    (tmp_path / "memory").mkdir()
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    info.write_text(f"1 1 0:1 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n")
    own.write_text("4:memory:/\n")
    found = Cgroups("handiwork-test", info, own)
    assert found.limits == ("memory",)
    assert list((tmp_path / "memory").iterdir()) == []
    (leaf,) = found.make("sbx_aaaaaaaa", Limits(memory_mib=3))
    assert found.make("sbx_aaaaaaaa", Limits(memory_mib=3)) == [leaf]
    assert found.leaves() == {"sbx_aaaaaaaa"}
    assert (leaf / "memory.limit_in_bytes").read_text() == str(3 << 20)
    for file in leaf.iterdir():
        file.unlink()
    await found.remove("sbx_aaaaaaaa")
    await found.remove("sbx_aaaaaaaa", "sbx_of_no_group")
    assert list((tmp_path / "memory").iterdir()) == []


def test_a_claimed_limit_that_cannot_be_set_is_no_sandbox(tmp_path):
    (tmp_path / "memory").mkdir()
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    info.write_text(f"1 1 0:1 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n")
    own.write_text("4:memory:/\n")
    found = Cgroups("handiwork-test", info, own)
    (leaf,) = found.make("one", Limits(memory_mib=1))
    (leaf / "memory.limit_in_bytes").unlink()
    (leaf / "memory.limit_in_bytes").mkdir()
    with pytest.raises(SandboxUnavailableError, match=r"memory\.limit_in_bytes cannot be set"):
        found.make("one", Limits(memory_mib=1))


def test_version_2_without_controllers_limits_nothing(tmp_path):
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    (tmp_path / "unified").mkdir()
    info.write_text(f"1 1 0:1 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n")
    own.write_text("0::/\n")
    assert Cgroups("handiwork-test", info, own).limits == ()


def test_no_cgroups_at_all_is_no_error(tmp_path):
    assert Cgroups("x", tmp_path / "none", tmp_path / "none").parents == []


def test_a_freezer_limits_nothing_and_is_found(tmp_path):
    (tmp_path / "freezer").mkdir()
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    info.write_text(f"1 1 0:1 / {tmp_path}/freezer rw - cgroup cgroup rw,freezer\n")
    own.write_text("6:freezer:/\n")
    found = Cgroups("handiwork-test", info, own)
    assert found.limits == ()
    assert found.freezer("sbx_aaaaaaaa") is not None
    assert Cgroups("x", tmp_path / "none", tmp_path / "none").freezer("sbx_aaaaaaaa") is None


def test_what_a_crashed_run_left_frozen_is_thawed(tmp_path):
    leaf = tmp_path / "freezer" / "handiwork-test" / "sbx_aaaaaaaa"
    leaf.mkdir(parents=True)
    (leaf / "freezer.state").write_text("FROZEN")
    info, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    info.write_text(f"1 1 0:1 / {tmp_path}/freezer rw - cgroup cgroup rw,freezer\n")
    own.write_text("6:freezer:/\n")
    found = Cgroups("handiwork-test", info, own)
    assert (leaf / "freezer.state").read_text() == "THAWED"
    (leaf / "freezer.state").write_text("FROZEN")
    found.make("sbx_aaaaaaaa", Limits())
    assert (leaf / "freezer.state").read_text() == "THAWED"


@pytest.mark.parametrize(
    ("name", "text", "killed"),
    [
        ("memory.events", "low 0\noom_kill 2\noom_group_kill 0\n", True),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("memory.other", "oom_kill 3\n", False),
    ],
)
def test_a_kill_for_memory_is_told(tmp_path, name, text, killed):
    groups = Cgroups("absent", tmp_path / "none", tmp_path / "none")
    groups.parents.append((tmp_path, 2, ("memory",)))
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / name).write_text(text)
    assert groups.killed_for_memory("leaf") is killed
