import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots.owners import Range, attribute_inside, attribute_outside

RANGED = Range(1 << 30)


@given(st.integers(0, 65_535))
def test_an_id_comes_back(inner):
    assert RANGED.inside(RANGED.outside(inner)) == inner


def test_an_id_of_no_range_is_nobody():
    assert RANGED.inside(0) == RANGED.inside((1 << 30) + 65_536) == 65_534
    assert Range(0, 1000).inside(1000) == 0
    assert Range(0, 1000).inside(0) == 65_534
    assert Range(0, 1000).outside(33) is None


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"user.mime", True),
        (b"user.overlay.opaque", True),
        (b"trusted.overlay.whiteout", True),
        (b"user.overlay.overlay.opaque", True),
        (b"user.overlay.origin", False),
        (b"user.overlay.impure", False),
        (b"security.selinux", False),
        (b"trusted.other", False),
    ],
)
def test_which_attributes_have_a_place(name, kept):
    assert (attribute_inside(name, b"v", RANGED) == b"v") is kept


@pytest.mark.parametrize("name", [b"user.overlay.redirect", b"trusted.overlay.metacopy"])
def test_what_needs_the_image_s_files_is_refused_in_and_left_out_of_what_comes_in(name):
    with pytest.raises(ValueError, match="needs the image"):
        attribute_inside(name, b"/x", RANGED)
    assert attribute_outside(name, b"/x", RANGED) is None


@given(st.binary(max_size=60))
def test_any_capability_or_acl_is_kept_whole_or_not_at_all(value):
    for name in (b"security.capability", b"system.posix_acl_access"):
        inner = attribute_inside(name, value, RANGED)
        if inner is not None:
            attribute_outside(name, inner, RANGED)


def test_a_capability_counts_for_the_new_root_alone():
    value = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 1 << 30)
    inner = attribute_inside(b"security.capability", value, RANGED)
    outer = attribute_outside(b"security.capability", inner, Range(5 << 16))
    assert struct.unpack("<IIIIII", outer) == (0x03000001, 1 << 13, 0, 0, 0, 5 << 16)
    assert attribute_outside(b"security.capability", inner, Range(0, 1000)) is None
