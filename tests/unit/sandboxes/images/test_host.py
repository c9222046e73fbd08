"""The host image holds what it should, nothing that it should not, and is named by its content."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.images.host import CA_BUNDLE, host_image


@pytest.fixture
def host(tmp_path):
    root = tmp_path / "host"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    etc = root / "etc"
    (etc / "ssl/certs").mkdir(parents=True)
    (etc / "ssl/certs/ca-certificates.crt").write_text("ROOTS")
    (etc / "ssl/certs/one.pem").symlink_to("/usr/share/one.crt")
    (etc / "python3").mkdir()
    (etc / "python3/open").write_text("x")
    (etc / "python3/closed").write_text("SECRET")
    (etc / "python3/closed").chmod(0o640)
    (etc / "passwd").write_text("person:x:1000:1000::/home/person:/bin/sh\n")
    for secret in ("shadow", "gshadow", "ssh/ssh_host_rsa_key", "netrc", "apt/auth.conf", "npmrc"):
        path = etc / secret
        path.parent.mkdir(exist_ok=True)
        path.write_text("SECRET")
    (root / "root").mkdir()
    (root / "root/.netrc").write_text("SECRET")
    return root


def contents(image):
    return {
        str(path.relative_to(image.tree)): path.read_bytes()
        for path in image.tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_it_holds_what_is_named_and_no_secret(host, tmp_path):
    image = host_image(tmp_path / "images", host)
    found = contents(image)
    assert found[CA_BUNDLE] == b"ROOTS"
    assert "etc/python3/open" in found
    assert not any(b"SECRET" in data or b"person" in data for data in found.values())
    assert (image.tree / "bin").readlink() == Path("usr/bin")
    assert found["etc/resolv.conf"].startswith(b"nameserver 127.0.0.1\n")
    assert (image.tree / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert list((image.tree / "usr").iterdir()) == []


def test_it_is_built_once_and_anew_when_the_host_changes(host, tmp_path):
    first = host_image(tmp_path / "images", host)
    made = first.tree.stat().st_ino
    assert host_image(tmp_path / "images", host) == first
    assert first.tree.stat().st_ino == made
    (host / "etc/python3/open").write_text("upgraded")
    second = host_image(tmp_path / "images", host)
    assert second.digest != first.digest
    assert first.tree.is_dir()
    assert sorted(entry.name for entry in (tmp_path / "images").iterdir()) == sorted(
        [first.digest, second.digest]
    )


def test_what_an_interrupted_build_left_is_replaced(host, tmp_path):
    digest = host_image(tmp_path / "other", host).digest
    beside = tmp_path / "images" / f".building-{digest}-{os.getpid()}"
    beside.mkdir(parents=True)
    (beside / "half").write_text("x")
    image = host_image(tmp_path / "images", host)
    assert "half" not in contents(image)
    assert not beside.exists()


@pytest.mark.parametrize("lost", ["image.json", "roots.pem", "root/etc/hosts"])
@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_one_that_a_power_cut_left_half_is_made_again(host, tmp_path, lost, how):
    image = host_image(tmp_path / "images", host)
    whole = contents(image)
    path = tmp_path / "images" / image.digest / lost
    path.unlink()
    if how == "emptied":
        path.touch()
    again = host_image(tmp_path / "images", host)
    assert (again, contents(again)) == (image, whole)
    assert [one.name for one in (tmp_path / "images").iterdir()] == [image.digest]


def test_a_split_usr_is_refused(tmp_path):
    (tmp_path / "host/bin").mkdir(parents=True)
    with pytest.raises(UnsupportedError, match="merged-usr"):
        host_image(tmp_path / "images", tmp_path / "host")


def test_this_host_gives_away_no_secret(tmp_path):
    image = host_image(tmp_path / "images")
    names = {path.name for path in image.tree.rglob("*")}
    assert not names & {"shadow", "gshadow", "shadow-", "netrc", ".netrc", "auth.conf", "sudoers"}
    assert not any(name.startswith("ssh_host_") for name in names)
    assert not any(b"PRIVATE KEY-----" in data for data in contents(image).values())
    assert list((image.tree / "root").iterdir()) == []
    assert list((image.tree / "home").iterdir()) == []
