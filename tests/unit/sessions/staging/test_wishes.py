"""What metadata asks for is read strictly: nothing in it can be an option or another transport."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import PolicyDeniedError, UnsupportedError
from handiwork.sessions.staging.wishes import FileWish, GitWish, Wishes, is_file_id, read

HOSTS = ("git.example.org",)
URL = "https://git.example.org/team/repo.git"


def test_wishes_are_read_and_other_keys_are_not_ours() -> None:
    metadata = {
        "handiwork.git.repo": URL,
        "handiwork.git.other": f"{URL}#release/1.0",
        "handiwork.file.data/in.csv": "in-2026.csv",
        "customer": "--upload-pack=x",
    }
    assert read(metadata, HOSTS) == Wishes(
        repositories=(
            GitWish(name="other", url=URL, ref="release/1.0"),
            GitWish(name="repo", url=URL),
        ),
        files=(FileWish(path="data/in.csv", file_id="in-2026.csv"),),
    )
    assert not read({"customer": "x"}, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example.org/repo",
        "ext::sh -c id",
        "file:///etc",
        "ssh://git.example.org/repo",
        "git@git.example.org:repo",
        "--upload-pack=/bin/sh",
        "https://user:pass@git.example.org/repo",
        "https://token@git.example.org/repo",
        "https://git.example.org",
        "https://git.example.org/",
        "https://git.example.org/a/../b",
        "https://git.example.org/-x",
        "https://git.example.org/repo?service=x",
        "https://git.example.org:8443/repo",
        "https://git.example.org/re po",
        "https://git.example.org/repo\n",
        "https://git.example.org/%2e%2e/x",
        "https://git.example.org\\@evil.org/repo",
        " https://git.example.org/repo",
        "HTTPS://git.example.org/repo",
        "",
        f"{URL}#",
        f"{URL}#-x",
        f"{URL}#a..b",
        f"{URL}#a b",
        f"{URL}#a@{{1}}",
        f"{URL}#refs/.hidden",
        f"{URL}#x.lock",
        f"{URL}#a#b",
        f"{URL}#/x",
        f"{URL}#" + "x" * 201,
    ],
)
def test_urls_that_are_more_than_a_place(url: str) -> None:
    with pytest.raises(UnsupportedError, match=r"'handiwork\.git\.repo' cannot be staged"):
        read({"handiwork.git.repo": url}, HOSTS)


@pytest.mark.parametrize(
    "host", ["evil.org", "git.example.org.evil.org", "xgit.example.org", "127.0.0.1", "localhost"]
)
def test_hosts_that_are_not_listed(host: str) -> None:
    with pytest.raises(PolicyDeniedError, match=r"staging\.git_hosts"):
        read({"handiwork.git.repo": f"https://{host}/repo"}, HOSTS)
    with pytest.raises(PolicyDeniedError):
        read({"handiwork.git.repo": URL}, ())


def test_an_explicit_443_is_the_same_host() -> None:
    assert read({"handiwork.git.r": "https://git.example.org:443/x"}, HOSTS)


@pytest.mark.parametrize("name", ["", ".git", "..", "a/b", "-x", "skills", "outputs", "a\0", "ü"])
def test_names_that_are_no_place(name: str) -> None:
    with pytest.raises(UnsupportedError):
        read({f"handiwork.git.{name}": URL}, HOSTS)


@pytest.mark.parametrize(
    ("path", "file_id"),
    [
        ("", "a"),
        ("/etc/passwd", "a"),
        ("../x", "a"),
        ("a/../x", "a"),
        ("a//b", "a"),
        (".bashrc", "a"),
        ("-x", "a"),
        ("skills/x", "a"),
        ("a", ""),
        ("a", "../secret"),
        ("a", "a/b"),
        ("a", ".hidden"),
        ("a", "-x"),
        ("a", "x\n"),
    ],
)
def test_files_that_are_more_than_a_name(path: str, file_id: str) -> None:
    with pytest.raises(UnsupportedError):
        read({f"handiwork.file.{path}": file_id}, HOSTS)


def test_more_than_the_limit() -> None:
    with pytest.raises(UnsupportedError, match="more than 16"):
        read({f"handiwork.file.f{n}": "a" for n in range(17)}, HOSTS)


@given(st.text(max_size=60), st.text(max_size=120))
def test_whatever_it_says_nothing_slips_through(name: str, value: str) -> None:
    for key in (f"handiwork.git.{name}", f"handiwork.file.{name}"):
        try:
            wishes = read({key: value}, HOSTS)
        except (UnsupportedError, PolicyDeniedError):
            continue
        for one in wishes.repositories:
            assert one.url.startswith("https://git.example.org")
            assert not one.ref.startswith("-")
        for one in wishes.files:
            assert is_file_id(one.file_id)
            assert not {"", ".", ".."} & set(one.path.split("/"))


@given(
    st.from_regex(r"https://git\.example\.org/[a-z/.-]{1,20}(#[a-z/.@-]{0,10})?", fullmatch=True)
)
def test_nearly_good_urls(url: str) -> None:
    try:
        (one,) = read({"handiwork.git.repo": url}, HOSTS).repositories
    except UnsupportedError:
        return
    assert "/.." not in one.url
    assert "/-" not in one.url
    assert "@" not in one.url + one.ref
