"""`handiwork secret …`: a value goes in over standard input and is never printed."""

import json

import pytest

VALUE = "a-very-secret-value"


def test_its_life(api, handiwork, typed) -> None:
    typed(f"{VALUE}\n".encode())
    done = handiwork("secret", "set", "key", "--host", "api.test", "--host", "*.x.test")
    assert done.out == "secret key version 1 sealed for api.test, *.x.test\n"
    assert (done.code, done.err) == (0, "")
    typed(VALUE.encode())
    assert "version 2" in handiwork("secret", "set", "key", "--host", "api.test").out
    listed = handiwork("secret", "list", "--json")
    (row,) = json.loads(listed.out)
    assert (row["name"], row["hosts"]) == ("key", ["api.test"])
    assert VALUE not in listed.out
    assert handiwork("secret", "delete", "key").code == 0
    assert handiwork("secret", "list", "--json").out == "[]\n"
    assert handiwork("secret", "delete", "key").code == 2


@pytest.mark.parametrize(
    "given", [b"", b"\n", b"short", b"two lines\nof it", b"not-ascii-\xff\xfe", b"x" * 50_000]
)
def test_a_value_that_cannot_be(given: bytes, api, handiwork, typed) -> None:
    typed(given)
    done = handiwork("secret", "set", "key", "--host", "api.test")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "two lines" not in done.err
    assert handiwork("secret", "list", "--json").out == "[]\n"


def test_a_host_that_cannot_be(api, handiwork, typed) -> None:
    typed(VALUE.encode())
    done = handiwork("secret", "set", "key", "--host", "*")
    assert done.code == 2
    assert VALUE not in done.err
