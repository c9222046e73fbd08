"""Egress secrets: anyone with the tenant's public key can seal one (`model/sealing.py`), only the
proxy opens it.

A secret is sealed by ephemeral X25519, HKDF-SHA256 and AES-256-GCM, with tenant, name, version
and hosts as associated data: moved to another tenant, name or host list it does not open. The
private halves lie in the proxy's own directory, wrapped by a key-encryption key beside them.
"""

import os
import stat
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handiwork.model.errors import ConfigError, SecretMissingError
from handiwork.model.ids import check_name
from handiwork.model.sealing import KEY_BYTES, associated_data, sealing_key
from handiwork.model.secret import SealedSecret

_NONCE_BYTES = 12


class SecretValue:
    """An opened secret; it shows itself only when `reveal` is called."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the value. Nothing but the writing of a request may call this."""
        return self._text

    def __repr__(self) -> str:
        return "SecretValue(…)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret value cannot be copied out of its process")


class Opener:
    """The proxy's keys in their directory (0700, its own uid); made where they are missing.

    Several proxy processes may start on an empty directory at once: one file wins, all read it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        _make_private(directory)
        _make_private(directory / "tenants")
        self._wrapping = AESGCM(_load_or_create(directory / "kek", os.urandom(KEY_BYTES)))
        self._private: dict[str, X25519PrivateKey] = {}

    def public_key(self, tenant: str) -> bytes:
        """Return the X25519 public key (32 bytes) of a tenant, whose pair is made at first use."""
        return self._tenant_key(tenant, create=True).public_key().public_bytes_raw()

    def ca_root(self) -> bytes:
        """Return the 32 bytes that every session's certificate authority is derived from."""
        return self._wrapped("ca-root", self._directory / "ca-root", create=True)

    def open(self, sealed: SealedSecret) -> SecretValue:
        """Return the value; SecretMissingError where anything about the secret was changed."""
        told = f"secret {sealed.name[:63]!r} v{sealed.version} of tenant {sealed.tenant[:63]!r}"
        private = self._tenant_key(sealed.tenant, create=False)
        public = private.public_key().public_bytes_raw()
        associated = associated_data(sealed.tenant, sealed.name, sealed.version, sealed.hosts)
        try:
            peer = X25519PublicKey.from_public_bytes(sealed.ephemeral_key)
            key = sealing_key(private.exchange(peer), sealed.ephemeral_key, public)
            plain = key.decrypt(sealed.nonce, sealed.ciphertext, associated)
            return SecretValue(plain.decode())
        except (InvalidTag, ValueError):
            # Nothing of the cause: it could quote bytes.
            raise SecretMissingError(f"{told} does not open with our keys: set it again") from None

    def _tenant_key(self, tenant: str, *, create: bool) -> X25519PrivateKey:
        found = self._private.get(tenant)
        if found is None:
            check_name("tenant", tenant)
            path = self._directory / "tenants" / f"{tenant}.key"
            raw = self._wrapped(f"tenant {tenant}", path, create=create)
            found = self._private[tenant] = X25519PrivateKey.from_private_bytes(raw)
        return found

    def _wrapped(self, purpose: str, path: Path, *, create: bool) -> bytes:
        """Return the 32 bytes kept in a wrapped file, bound to their purpose."""
        if create:
            nonce = os.urandom(_NONCE_BYTES)
            fresh = self._wrapping.encrypt(nonce, os.urandom(KEY_BYTES), purpose.encode())
            content = _load_or_create(path, nonce + fresh)
        elif path.exists():
            content = _read_private(path)
        else:
            raise SecretMissingError(
                f"there is no key for {purpose}: no secret of it was sealed here"
            )
        try:
            return self._wrapping.decrypt(
                content[:_NONCE_BYTES], content[_NONCE_BYTES:], purpose.encode()
            )
        except (InvalidTag, ValueError):
            raise ConfigError(
                f"{path} is not wrapped by the key in {self._directory / 'kek'}: restore both"
                " from one backup"
            ) from None


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{directory} must be a directory with mode 0700 owned by uid {os.geteuid()}"
        )


def _read_private(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(f"{path} must be a file with mode 0600 owned by uid {os.geteuid()}")
        content = file.read(4096)
    if len(content) < KEY_BYTES:
        raise ConfigError(f"{path} is cut short: restore it from a backup")
    return content


def _load_or_create(path: Path, fresh: bytes) -> bytes:
    """Return the file's content, which is `fresh` if there was none; complete or not there at all."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(fresh)
                file.flush()
                os.fsync(file.fileno())
            _publish(draft, path)
        finally:
            draft.unlink()
    return _read_private(path)


def _publish(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return  # Another process was first: its file is the one.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
