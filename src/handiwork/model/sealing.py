"""Sealing a secret to a tenant's public key: whoever seals cannot open. Pure; entropy is an argument.

Ephemeral X25519, HKDF-SHA256 and AES-256-GCM, with tenant, name, version and hosts as associated
data: moved to another tenant, name or host list a secret does not open. Only the egress proxy holds
the private halves (`egress/secrets.py`).
"""

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from handiwork.model.secret import SealedSecret, check_secret

KEY_BYTES = 32
ENTROPY_BYTES = KEY_BYTES + 12

_CONTEXT = b"handiwork egress secret, version 1"


def seal(
    public_key: bytes,
    *,
    tenant: str,
    name: str,
    version: int,
    hosts: tuple[str, ...],
    value: str,
    entropy: bytes,
) -> SealedSecret:
    """Return the secret sealed to a tenant's public key; ConfigError for a bad name, host or value.

    `entropy` is 44 random bytes, never used twice.
    """
    check_secret(name, hosts, value)
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"sealing takes {ENTROPY_BYTES} random bytes")
    private = X25519PrivateKey.from_private_bytes(entropy[:KEY_BYTES])
    ephemeral, nonce = private.public_key().public_bytes_raw(), entropy[KEY_BYTES:]
    shared = private.exchange(X25519PublicKey.from_public_bytes(public_key))
    key = sealing_key(shared, ephemeral, public_key)
    return SealedSecret(
        tenant=tenant,
        name=name,
        version=version,
        hosts=hosts,
        ephemeral_key=ephemeral,
        nonce=nonce,
        ciphertext=key.encrypt(
            nonce, value.encode(), associated_data(tenant, name, version, hosts)
        ),
    )


def associated_data(tenant: str, name: str, version: int, hosts: tuple[str, ...]) -> bytes:
    """Return what a sealed secret is bound to."""
    return msgspec.json.encode((tenant, name, version, hosts))


def sealing_key(shared: bytes, ephemeral: bytes, public_key: bytes) -> AESGCM:
    """Return the key of one secret, from what both halves of the exchange agree on."""
    derived = HKDF(SHA256(), KEY_BYTES, salt=ephemeral + public_key, info=_CONTEXT)
    return AESGCM(derived.derive(shared))
