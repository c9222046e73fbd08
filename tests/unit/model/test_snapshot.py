"""Names of pins."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.snapshot import check_pin


@pytest.mark.parametrize("name", ["a", "v1.2_x-y", "A" * 64])
def test_a_name(name: str) -> None:
    assert check_pin(name) == name


@pytest.mark.parametrize("name", ["", ".", "-a", "a/b", "A" * 65, "a b", "a\n"])
def test_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="pin"):
        check_pin(name)
