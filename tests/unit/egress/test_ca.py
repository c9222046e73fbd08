import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handiwork.egress.ca import Authority

ROOT = bytes(range(32))


class _Clock:
    def __init__(self):
        self.time = datetime.now(UTC)

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return _Clock()


@pytest.fixture
def authority(clock):
    return Authority(ROOT, "sesn_abcdefgh", 1, now=clock)


def _handshake(server, trusted_pem, name):
    """Do one real handshake; return the client's view, or raise what the client saw."""
    client = ssl.create_default_context(cadata=trusted_pem)
    client.set_alpn_protocols(["h2", "http/1.1"])
    left, right = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(left, server_side=True) as stream:
                stream.recv(1)
        except OSError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=name) as stream:
            stream.sendall(b"x")
            return stream.version(), stream.selected_alpn_protocol(), stream.getpeercert()
    finally:
        right.close()
        thread.join(10)


def test_the_certificate_is_the_same_in_every_life(clock):
    one = Authority(ROOT, "sesn_abcdefgh", 1, now=clock)
    clock.time += timedelta(days=300)
    assert Authority(ROOT, "sesn_abcdefgh", 1, now=clock).certificate_pem == one.certificate_pem


def test_another_process_makes_the_same_bytes(authority):
    script = (
        "from handiwork.egress.ca import Authority\n"
        "print(Authority(bytes(range(32)), 'sesn_abcdefgh', 1, now=None).certificate_pem, end='')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert shown == authority.certificate_pem


@pytest.mark.parametrize(
    ("root", "id", "generation"),
    [(bytes(32), "sesn_abcdefgh", 1), (ROOT, "sesn_abcdefgi", 1), (ROOT, "sesn_abcdefgh", 2)],
)
def test_another_root_session_or_generation_is_another_authority(
    authority, clock, root, id, generation
):
    other = Authority(root, id, generation, now=clock)
    mine, theirs = (
        x509.load_pem_x509_certificate(a.certificate_pem.encode()) for a in (authority, other)
    )
    assert mine.public_key() != theirs.public_key()
    assert mine.serial_number != theirs.serial_number
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(other.context("a.test"), authority.certificate_pem, "a.test")


def test_ids_and_generations_cannot_run_together(clock):
    one = Authority(ROOT, "sesn_a1", 11, now=clock)
    assert one.certificate_pem != Authority(ROOT, "sesn_a11", 1, now=clock).certificate_pem
    with pytest.raises(ValueError):
        Authority(ROOT, "a\0b", 1, now=clock)
    with pytest.raises(ValueError):
        Authority(b"short", "a", 1, now=clock)


@pytest.mark.parametrize("name", ["a.test", "x" * 60 + ".a-long-label." + "y" * 60 + ".test"])
def test_a_client_that_trusts_the_authority_accepts_its_leaf(authority, name):
    version, protocol, seen = _handshake(authority.context(name), authority.certificate_pem, name)
    assert version == "TLSv1.3"
    assert protocol == "http/1.1"
    assert seen["subjectAltName"] == (("DNS", name),)


def test_a_leaf_for_an_address_names_the_address(authority):
    seen = _handshake(authority.context("10.0.0.1"), authority.certificate_pem, "10.0.0.1")[2]
    assert seen["subjectAltName"] == (("IP Address", "10.0.0.1"),)


def test_a_leaf_is_for_its_name_only(authority):
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(authority.context("a.test"), authority.certificate_pem, "b.test")


def test_old_protocols_are_refused(authority):
    assert authority.context("a.test").minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_authority_signs_leaves_only(authority):
    certificate = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert limits.critical
    assert (limits.value.ca, limits.value.path_length) == (True, 0)
    assert usage.key_cert_sign
    assert not usage.digital_signature
    leaf = authority.mint("a.test")
    leaf.verify_directly_issued_by(certificate)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_leaf_lives_a_day_and_is_made_anew_before_its_end(authority, clock):
    leaf = authority.mint("a.test")
    assert leaf.not_valid_after_utc - clock.time <= timedelta(hours=24)
    first = authority.context("a.test")
    clock.time += timedelta(hours=19)
    assert authority.context("a.test") is first
    clock.time += timedelta(hours=2)
    assert authority.context("a.test") is not first


def test_contexts_are_kept_up_to_a_limit(clock):
    authority = Authority(ROOT, "sesn_abcdefgh", 1, now=clock, limit=2)
    first = authority.context("a.test")
    authority.context("b.test")
    assert authority.context("a.test") is first
    authority.context("c.test")
    assert authority.context("a.test") is first
    assert len(authority._contexts) == 2


@pytest.mark.parametrize("name", ["*.a.test", "A.test", "a.test.", "", "a b"])
def test_only_canonical_names_get_a_leaf(authority, name):
    with pytest.raises(ValueError):
        authority.mint(name)


def test_the_repr_shows_no_key(authority):
    private = authority._key.private_numbers().private_value
    assert str(private) not in repr(authority)


_UNDUMPABLE = """
import os, datetime
from handiwork.egress.ca import Authority
from handiwork.process import harden
authority = Authority(bytes(32), "a", 1, now=lambda: datetime.datetime.now(datetime.UTC))
authority.context("a.test")  # loads what is loaded late: the interpreter may be closed to others
os.setresuid(65534, 65534, 65534)
harden()
authority.context("b.test")
print("minted", os.access("/proc/self/mem", os.R_OK))
"""


@pytest.mark.root
def test_a_hardened_process_without_root_can_still_mint():
    shown = subprocess.run(
        [sys.executable, "-c", _UNDUMPABLE], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert shown == "minted False\n"


def _open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_no_key_is_written_to_a_disk(authority, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = _open_files()
    authority.context("a.test")
    assert not list(tmp_path.iterdir())
    assert _open_files() == before


def test_sabotage_a_random_signature_would_be_noticed(clock, monkeypatch):
    real = x509.CertificateBuilder.sign

    def random(self, key, algorithm, *, ecdsa_deterministic=None):
        return real(self, key, algorithm)

    monkeypatch.setattr(x509.CertificateBuilder, "sign", random)
    one, two = (Authority(ROOT, "sesn_abcdefgh", 1, now=clock) for _ in range(2))
    assert one.certificate_pem != two.certificate_pem
