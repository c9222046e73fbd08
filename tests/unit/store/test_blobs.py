import pytest

from handiwork.store.blobs import check_key, is_key


def test_a_plain_path_is_a_key():
    assert check_key("default/packs/ab/abcd.1_2-3") == "default/packs/ab/abcd.1_2-3"
    assert is_key("default/packs/ab/abcd.1_2-3")


@pytest.mark.parametrize("key", ["a/../b", "a\n", "a/" * 9 + "a", "ä", "a" * 129])
def test_anything_else_is_refused(key):
    assert not is_key(key)
    with pytest.raises(ValueError, match="no key"):
        check_key(key)
