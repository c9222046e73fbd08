"""Sealing is decided by its arguments and refuses what cannot be bound or masked."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from handiwork.model.errors import ConfigError
from handiwork.model.sealing import ENTROPY_BYTES, seal

PUBLIC = X25519PrivateKey.from_private_bytes(b"p" * 32).public_key().public_bytes_raw()
VALUE = "sk-the-real-secret-value"


def sealed(**changes):
    facts = {"tenant": "default", "name": "k", "version": 1, "hosts": ("a.test",), "value": VALUE}
    return seal(PUBLIC, **{"entropy": bytes(range(ENTROPY_BYTES)), **facts, **changes})


def test_sealing_follows_its_entropy():
    assert sealed() == sealed()
    other = sealed(entropy=bytes(ENTROPY_BYTES))
    assert (other.ciphertext, other.nonce) != (sealed().ciphertext, sealed().nonce)
    with pytest.raises(ValueError, match="44 random bytes"):
        sealed(entropy=b"few")


def test_the_value_stands_nowhere_in_what_is_kept():
    assert VALUE.encode() not in sealed().ciphertext
    assert VALUE not in repr(sealed())


@pytest.mark.parametrize("change", [{"hosts": ()}, {"hosts": ("*",)}, {"value": "short"}])
def test_what_cannot_be_bound_or_masked_is_not_sealed(change):
    with pytest.raises(ConfigError) as refused:
        sealed(**change)
    assert VALUE not in str(refused.value)
