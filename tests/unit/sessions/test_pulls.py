"""Credentials of registries: kept sealed, for one host each; the way out of a pull is narrow."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sessions.pulls import CREDENTIALS, GRANT, put_credentials
from handiwork.testing.store import MemoryStore


async def test_credentials_are_a_control_secret_of_their_host() -> None:
    secrets = MemoryStore().control_secrets
    await put_credentials(secrets, "r.example.org", "me", "pass:word")
    assert await secrets.get(f"{CREDENTIALS}r.example.org") == "me:pass:word"


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("a", ""), ("a:b", "x"), ("a", "x\n")])
async def test_what_cannot_be_sent_is_refused(user: str, password: str) -> None:
    secrets = MemoryStore().control_secrets
    with pytest.raises(ConfigError) as raised:
        await put_credentials(secrets, "r.example.org", user, password)
    assert "x" not in str(raised.value).split()
    assert await secrets.get(f"{CREDENTIALS}r.example.org") is None


def test_a_pull_may_only_get() -> None:
    (layer,) = GRANT.layers
    (rule,) = layer.policy.rules
    assert rule.match.methods == ("GET",)
    assert GRANT.secrets == GRANT.placeholders == ()
