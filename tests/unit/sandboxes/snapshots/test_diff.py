from handiwork.sandboxes.snapshots.diff import differences


def changes(before, after, differing=lambda _pairs: (), **more):
    found = {one.path: one.change for one in differences(before, after, differing, **more)}
    found.pop(b"/", None)  # its time tells that names in it came and went
    return found


def test_what_changed_is_told_by_path(place):
    place.file("d/same", b"1")
    place.file("d/edited", b"1")
    place.file("gone", b"1")
    before = place.take().body
    place.file("d/edited", b"22")
    (place.upper / "gone").unlink()
    place.file("new", b"1")
    after = place.take().body
    every = {b"/d/edited": "changed", b"/gone": "removed", b"/new": "added"}
    assert changes(before, after) == every
    assert changes(before, after, below=b"/d") == {b"/d/edited": "changed"}
    assert changes(before, after, below=b"/ne") == {}
    assert differences(before, before, differing=None) == []


def test_a_file_that_differs_in_its_chunks_alone_is_asked_for(place):
    for name in ("a", "b"):
        place.file(name, b"1" * 1000)
    before = place.take().body
    for entry in before.entries:
        entry.mtime_ns = 0
    place.file("a", b"2" * 1000)
    after = place.take().body
    for entry in after.entries:
        entry.mtime_ns = 0
    asked = []

    def differing(pairs):
        asked.append([one.path for one in pairs])
        assert all(one.old.name == one.new.name for one in pairs)
        return {b"/a"} & set(asked[-1])

    assert changes(before, after, differing) == {b"/a": "changed"}
    assert asked == [[b"/a", b"/b"]]
    assert changes(before, after, differing, below=b"/b") == {}
    assert asked == [[b"/a", b"/b"], [b"/b"]]


def test_of_the_first_ones_nothing_behind_the_last_is_asked_for(place):
    for name in "abcd":
        place.file(name, b"1" * 1000)
    before = place.take().body
    for name in "abcd":
        place.file(name, b"2" * 1000)
    (place.upper / "b").unlink()
    after = place.take().body
    for entry in (*before.entries, *after.entries):
        entry.mtime_ns = 0
    asked = []

    def differing(pairs):
        asked.append([one.path for one in pairs])
        return asked[-1]

    found = [
        [(one.path, one.change) for one in differences(before, after, differing, limit=limit)]
        for limit in (1, 2)
    ]
    assert found == [
        [(b"/a", "changed")],
        [(b"/a", "changed"), (b"/b", "removed")],
    ]
    assert asked == [[b"/a"], [b"/a", b"/c", b"/d"]]
