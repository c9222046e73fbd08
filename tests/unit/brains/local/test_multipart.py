"""Forms are read as clients send them; everything else is refused."""

import contextlib

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handiwork.brains.local import multipart
from handiwork.brains.local.multipart import MultipartError

NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\\%", exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=20,
)


def sent(files: list[tuple[str, bytes]], data: dict[str, str]) -> tuple[bytes, bytes]:
    """Return the boundary and the body as the SDK's client sends them."""
    request = httpx2.Request(
        "POST", "http://x", data=data, files=[("files[]", each) for each in files]
    )
    return multipart.boundary_of(request.headers["content-type"]), request.read()


@given(st.lists(st.tuples(NAME, st.binary(max_size=200)), min_size=1, max_size=5), NAME)
@example([("a/SKILL.md", b"\r\n--\r\n")], "x")
def test_what_a_client_sends_is_what_is_read(files, label):
    boundary, body = sent(files, {"display_name": label})
    parts = multipart.parts_of(body, boundary)
    assert [(p.filename, p.content) for p in parts if p.name == "files[]"] == files
    assert [p.content for p in parts if p.name == "display_name"] == [label.encode()]


@given(st.binary(max_size=300))
def test_any_body_is_a_form_or_refused(body):
    for each in (body, b"--b\r\n" + body + b"\r\n--b--\r\n"):
        with contextlib.suppress(MultipartError):
            assert all(part.name is not None for part in multipart.parts_of(each, b"b"))


@given(st.integers(0, 400))
def test_a_cut_form_is_refused(length):
    boundary, body = sent([("a/SKILL.md", b"x" * 50)], {"display_name": "d"})
    if length < len(body.rstrip(b"\r\n")):
        with pytest.raises(MultipartError):
            multipart.parts_of(body[:length], boundary)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "a" * 71,
        'multipart/form-data; boundary="\n"',
    ],
)
def test_a_wrong_content_type_is_refused(content_type):
    with pytest.raises(MultipartError, match="content-type"):
        multipart.boundary_of(content_type)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"", "no head"),
        (b"\r\nX: 1\r\n\r\n", "content-disposition"),
        (b"\r\nContent-Disposition: attachment; name=a\r\n\r\n", "no field"),
        (b"\r\nContent-Disposition: form-data\r\n\r\n", "no field"),
        (b"\r\nContent-Disposition: form-data; name=\xff\r\n\r\n", "UTF-8"),
        (b"\r\nA: " + b"a" * 9000 + b"\r\n\r\n", "too long"),
        (b"x\r\n\r\n", "line of its own"),
    ],
)
def test_a_malformed_part_is_refused_by_name(part, reason):
    with pytest.raises(MultipartError, match=reason if part else "line of its own"):
        multipart.parts_of(b"--b" + part + b"\r\n--b--", b"b")


def test_parts_have_a_limit():
    part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    assert len(multipart.parts_of(part * 1000 + b"--b--", b"b")) == 1000
    with pytest.raises(MultipartError, match="1000 parts"):
        multipart.parts_of(part * 1001 + b"--b--", b"b")
