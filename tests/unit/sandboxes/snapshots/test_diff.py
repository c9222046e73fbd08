from handiwork.sandboxes.snapshots.diff import differences


def test_what_changed_is_told_by_path(place):
    place.file("d/same", b"1")
    place.file("d/edited", b"1")
    place.file("gone", b"1")
    before = place.take().body
    place.file("d/edited", b"22")
    (place.upper / "gone").unlink()
    place.file("new", b"1")
    found = {one.path: one.change for one in differences(before, place.take().body)}
    found.pop(b"/", None)  # its time tells that names in it came and went
    assert found == {b"/d/edited": "changed", b"/gone": "removed", b"/new": "added"}
    assert list(differences(before, before)) == []
