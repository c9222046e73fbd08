"""Names of images."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.image import check_image_name


def test_plain_names_are_taken():
    for name in ("a", "debian-12.1_x", "0", "x" * 63):
        assert check_image_name(name) == name


@pytest.mark.parametrize("name", ["", "host", "A", ".a", "a b", "a/b", "a:b", "x" * 64, "\u00e9"])
def test_others_are_refused(name):
    with pytest.raises(ConfigError):
        check_image_name(name)
