from handiwork.sandboxes.snapshots.diff import differences


def changes(before, after, is_same=lambda _path, _old, _new: True, **more):
    found = {one.path: one.change for one in differences(before, after, is_same, **more)}
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
    assert list(differences(before, before, is_same=None)) == []


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

    def is_same(path, old, new):
        asked.append(path)
        assert old.name == new.name
        return path == b"/b"

    assert changes(before, after, is_same) == {b"/a": "changed"}
    assert asked == [b"/a", b"/b"]
    assert changes(before, after, is_same, below=b"/b") == {}
    assert asked == [b"/a", b"/b", b"/b"]
