"""What a sandbox may do today: never what was looked up before a change."""

from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.model.egress import EgressGrant
from handiwork.model.errors import PolicyDeniedError, SandboxUnavailableError
from handiwork.model.policy import Policy, PolicyLayer
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.sessions.grants import LOOKS, Grants, binding, check_tier, variables
from handiwork.sessions.policies import NOTHING

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = SandboxRecord(
    id="sbx_1",
    tier="namespace",
    image="host",
    state=SandboxState.RUNNING,
    env={"A": "1"},
    created_at=NOW,
    updated_at=NOW,
)


class Lookups:
    """Policies and credentials; the policies change while the secrets of the first few are looked up."""

    def __init__(self, changes: int) -> None:
        self.left = changes
        self.policy = 0
        self.grants: Grants | None = None

    async def layers(self, record):
        return {f"policy {self.policy}": None}

    async def grant(self, layers):
        return NOTHING

    async def standing(self, record):
        if self.left:
            self.left -= 1
            self.policy += 1
            self.grants.changes += 1
        return ()


def looked_up(changes):
    lookups = Lookups(changes)
    lookups.grants = Grants(lookups, lookups)
    return lookups.grants


async def test_what_changes_meanwhile_is_looked_up_again():
    layers, grant = await looked_up(3).today(RECORD)
    assert list(layers) == ["policy 3"]
    assert grant == NOTHING


async def test_it_is_given_up_after_a_while():
    with pytest.raises(SandboxUnavailableError, match="change all the time"):
        await looked_up(LOOKS).today(RECORD)


def wanting(*minimums):
    """A grant with a layer for each."""
    scopes = ("global", "agent", "session")
    return EgressGrant(
        layers=tuple(
            PolicyLayer(scope=scope, policy=Policy(name="p", rules=(), minimum_tier=minimum))
            for scope, minimum in zip(scopes, minimums, strict=False)
        )
    )


@pytest.mark.parametrize(
    ("tier", "minimums", "refusing"),
    [
        ("namespace", ("", ""), None),
        ("namespace", ("namespace", ""), None),
        ("namespace", ("", "gvisor"), "agent:p/minimum_tier"),
        ("isolate", ("gvisor", "microvm"), "global:p/minimum_tier"),
        ("gvisor", ("gvisor", "", "microvm"), "session:p/minimum_tier"),
        ("gvisor", ("gvisor", "namespace", ""), None),
        ("microvm", ("gvisor", "microvm", ""), None),
    ],
)
def test_every_layer_may_want_a_stronger_tier(tier, minimums, refusing):
    record = msgspec.structs.replace(RECORD, tier=tier)
    if refusing is None:
        check_tier(record, wanting(*minimums))
        return
    with pytest.raises(PolicyDeniedError, match="is weaker than minimum_tier") as told:
        check_tier(record, wanting(*minimums))
    assert told.value.rule_id == refusing


def test_its_own_variables_win():
    assert variables(RECORD, NOTHING) == {"A": "1"}


def test_the_authority_of_a_session_is_that_of_all_its_sandboxes():
    assert binding(RECORD).ca_id == "sbx_1"
    assert binding(msgspec.structs.replace(RECORD, session_id="sesn_1")).ca_id == "sesn_1"
