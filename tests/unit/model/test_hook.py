import pytest

from handiwork.model.hook import is_hook_name


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("add_header", True),
        ("a", True),
        ("a2", True),
        ("", False),
        ("_a", False),
        ("2a", False),
        ("A", False),
        ("a-b", False),
        ("a.b", False),
        ("a/b", False),
        ("ä", False),
        ("a\n", False),
        ("a" * 64, False),
    ],
)
def test_names(name: str, good: bool) -> None:
    assert is_hook_name(name) is good
