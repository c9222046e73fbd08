"""How our own secrets are sealed: AES-256-GCM under a data key, itself wrapped by the control key.

What is sealed is bound to its place (tenant and name) as associated data, so that a row moved to
another place does not open. The control key is a file that only the control plane's user reads.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handiwork.model.errors import ConfigError

KEY_BYTES = 32
NONCE_BYTES = 12


def new_key() -> bytes:
    """Draw a key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plain: bytes, place: str) -> bytes:
    """Return nonce and ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, place.encode())


def unseal(key: bytes, sealed: bytes, place: str) -> bytes:
    """Return what was sealed for this place; ConfigError when key, place or bytes differ."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except InvalidTag:
        raise ConfigError(
            f"the control key does not open what the database keeps for {place};"
            " restore the key file that belongs to this database"
        ) from None


def load_control_key(path: Path) -> bytes:
    """Read the control key, or make it (mode 0600) where there is no file.

    ConfigError when the file is not ours alone or does not hold a key.
    """
    try:
        _create(path)
        return _read(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the control key cannot be read: {error.strerror}; check the folder's owner"
        ) from None


def _create(path: Path) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(new_key())
        file.flush()
        os.fsync(descriptor)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise ConfigError(f"{path}: others may read the control key; run: chmod 600 {path}")
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path}: not a control key ({KEY_BYTES} bytes); restore it from your backup,"
            " or remove it and the control database to start anew"
        )
    return key
