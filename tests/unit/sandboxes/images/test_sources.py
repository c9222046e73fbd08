"""Of the host's apt sources those of one suite are taken."""

from handiwork.sandboxes.images.sources import of_suite

NEW = """Types: deb
# a snapshot
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example/security
Suites: bookworm-security
Components: main

Types: deb deb-src
URIs: https://other.example/node
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
"""
OLD = """# comment
deb http://deb.example/debian bookworm main
deb [signed-by=/k.gpg arch=amd64] http://deb.example/debian bookworm/updates main
deb-src http://deb.example/debian bookworm main
deb http://other.example tool-bookworm main
deb http://deb.example/debian trixie main
"""


def test_stanzas_of_the_suite():
    lines, stanzas = of_suite("bookworm", [("debian.sources", NEW), ("notes.txt", OLD)])
    assert lines == ""
    assert stanzas.count("Types:") == 2
    assert "Signed-By: /usr/share" in stanzas
    assert not any(name in stanzas for name in ("other.example", "off.example", "#"))


def test_lines_of_the_suite():
    lines, stanzas = of_suite("bookworm", [("sources.list", OLD)])
    assert stanzas == ""
    assert lines.splitlines() == [OLD.splitlines()[1], OLD.splitlines()[2]]


def test_another_suite_has_none():
    assert of_suite("sid", [("a.sources", NEW), ("b.list", OLD)]) == ("", "")
