"""`handiwork snapshot …`: taken, listed, gone back to, kept, forked."""

import json

import msgspec

from handiwork.model.snapshot import SnapshotStatus


def test_its_life(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    assert handiwork("snapshot", "take", box).out == "1\nleft out: /s is a socket\n"
    assert json.loads(handiwork("snapshot", "take", box, "--json").out)["number"] == 2
    listed = json.loads(handiwork("snapshot", "list", box, "--json").out)
    assert [one["number"] for one in listed["snapshots"]] == [2, 1]
    assert handiwork("snapshot", "pin", box, "1", "good").code == 0
    told = handiwork("snapshot", "list", box).out
    assert "good" in told
    assert "5.0 MiB" in told
    assert handiwork("snapshot", "rm", box, "1").code == 1
    assert handiwork("snapshot", "unpin", box, "good").code == 0
    assert handiwork("snapshot", "rm", box, "1").code == 0


def test_a_failure_is_shown(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    failed = SnapshotStatus(sandbox_id=box, failure="the disk is full")
    api(api.served.store.snapshots.tell(failed))
    assert "the disk is full" in handiwork("snapshot", "list", box).out
    shown = json.loads(handiwork("snapshot", "list", box, "--json").out)
    assert shown["status"] == msgspec.to_builtins(failed)


def test_back_what_differs_and_more(api, handiwork) -> None:
    box = handiwork("sandbox", "create").out.strip()
    handiwork("snapshot", "take", box)
    assert handiwork("snapshot", "rollback", box, "1", "--drop-present").out == "running\n"
    assert handiwork("snapshot", "rollback", box, "9").code == 2
    told = handiwork("snapshot", "diff", box, "1", "2", "--limit", "1").out
    assert "added" in told
    assert "there is more than 1" in told
    assert json.loads(handiwork("snapshot", "diff", box, "1", "2", "--json").out)["after"] == 2
    made = handiwork("snapshot", "fork", box, "--count", "2", "--sleeping").out.split()
    assert len(set(made)) == 2
    assert api.served.snapshots.asked[-1] == ("fork", 2, None, "", False)


def test_out_and_in(api, handiwork, tmp_path) -> None:
    box = handiwork("sandbox", "create").out.strip()
    handiwork("snapshot", "take", box)
    target = tmp_path / "file"
    assert handiwork("snapshot", "export", box, "1", str(target)).out == f"{target}: 0.0 MiB\n"
    made = handiwork("snapshot", "import", str(target)).out.strip()
    assert made.startswith("sbx_")
    assert handiwork("snapshot", "import", str(tmp_path / "none")).code == 2
