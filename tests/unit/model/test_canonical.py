import pytest

from handiwork.model.canonical import (
    NotCanonical,
    canonical_host,
    canonical_path,
    check_pattern,
    host_covers,
    is_address,
    split_authority,
)


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("EXAMPLE.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("foo。bar", "foo.bar"),
        ("\u212a.com", "k.com"),
        ("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127.0.0.1"),
        ("1.2.3.4.", "1.2.3.4"),
        ("[::1]", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("a_b.example", "a_b.example"),
        ("r3---sn-x.example", "r3---sn-x.example"),
    ],
)
def test_a_host_has_one_form(raw, host):
    assert canonical_host(raw) == host


@pytest.mark.parametrize(
    "raw",
    [
        *("", ".", "a..b", "a.b..", ".a", "ex ample.com", "a\tb", "a\n", "a\0b", "user@a", "a/b"),
        *("a\\b", "a%2eb", "a?b", "a#b", "a:b", "-a.com", "a-.com", "a" * 64 + ".com", "a." * 130),
        *("0x7f.1", "0177.0.0.1", "127.1", "2130706433", "1.2.3.04", "1.2.3.256", "1.2.3.4.5"),
        *(
            "a.0x",
            "a.1",
            "[::1",
            "::1]",
            "[1.2.3.4]",
            "fe80::1%eth0",
            "[::1%25lo]",
            "xn--a.example",
        ),
        *("xn--BCHER-.example", "a\u200db.com", "\u2100.com", "a。。b"),
    ],
)
def test_a_host_without_one_form_is_refused(raw):
    with pytest.raises(NotCanonical):
        canonical_host(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a.com", ("a.com", 443)),
        ("A.com.:80", ("a.com", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::1]", ("::1", 443)),
        ("1.2.3.4:65535", ("1.2.3.4", 65535)),
    ],
)
def test_an_authority_splits_into_host_and_port(raw, expected):
    assert split_authority(raw, 443) == expected


@pytest.mark.parametrize(
    "raw",
    [
        *("", ":80", "a:", "a:0", "a:65536", "a:080", "a:+8", "a:8 0", "a: 80", "a:80:90", "a:٨٠"),
        *("::1", "[::1]80", "[::1]:", "[::1", "u@a:1", "u:p@a"),
    ],
)
def test_an_odd_authority_is_refused(raw):
    with pytest.raises(NotCanonical):
        split_authority(raw, 443)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", ("/", "")),
        ("/a/../b", ("/b", "")),
        ("/%2e%2E/x", ("/x", "")),
        ("/a/%2e%2e/%2e/b/", ("/b/", "")),
        ("//a///b//", ("/a/b/", "")),
        ("/a//../b", ("/b", "")),
        ("/..", ("/", "")),
        ("/a/.", ("/a/", "")),
        ("/%7euser/%41", ("/~user/A", "")),
        ("/a%20b%c3%a9", ("/a%20b%C3%A9", "")),
        ("/@scope%2fname", ("/@scope%2Fname", "")),
        ("/{id}|", ("/%7Bid%7D%7C", "")),
        ("/a;v=1/b", ("/a;v=1/b", "")),
        ("/a?b=%zz/../c//d&e", ("/a", "b=%zz/../c//d&e")),
        ("/%252e%252e/a", ("/%252e%252e/a", "")),
    ],
)
def test_a_path_has_one_form(target, expected):
    assert canonical_path(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        *("", "a", "*", "http://a/", "/a b", "/a\r\nb", "/\0", "/é", "/a\\b", "/a#b", "/a?b#c"),
        *("/a%00", "/a%5cb", "/a%5Cb", "/a%", "/a%2", "/a%zz", "/a%\u0660\u0660", "/a%+1"),
        *("/a/..;/b", "/a/.;x/b", "/..%3b/b", "/" + "a" * 40_000),
    ],
)
def test_a_path_without_one_form_is_refused(target):
    with pytest.raises(NotCanonical):
        canonical_path(target)


def test_patterns_cover_what_they_say():
    assert host_covers("*", "anything.test")
    assert host_covers("a.test", "a.test")
    assert not host_covers("a.test", "b.a.test")
    assert host_covers("*.a.test", "b.a.test")
    assert host_covers("*.a.test", "c.b.a.test")
    assert not host_covers("*.a.test", "a.test")
    assert not host_covers("*.a.test", "xa.test")
    assert not host_covers("*.a.test", ".a.test")


@pytest.mark.parametrize("pattern", ["*", "*.a.test", "a.test", "10.0.0.1", "::1"])
def test_good_patterns_are_kept(pattern):
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern", ["", "*.", "**", "*a.test", "a.*.test", "*.*.a", "A.test", "a.test.", "*.10.0.0.1"]
)
def test_bad_patterns_are_refused(pattern):
    with pytest.raises(NotCanonical):
        check_pattern(pattern)


def test_an_address_is_told_from_a_name():
    assert is_address("10.0.0.1")
    assert is_address("::1")
    assert not is_address("a.test")
