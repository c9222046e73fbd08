"""What operators write, through the client."""

import pytest

from api_stand_in import NOW, Served
from handiwork import Handiwork
from handiwork.model.audit import AuditRecord
from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.model.policy import AllowRule, Match, Policy

POLICY = Policy(name="web", rules=(AllowRule(id="a", match=Match(hosts=("a.test",))),))


async def test_policies(hw: Handiwork) -> None:
    assert (await hw.policies.put(POLICY)).version == 1
    assert await hw.policies.get("web") == POLICY
    text = 'name = "web"\nrules = []'
    assert (await hw.policies.put_toml("web", text)).version == 2
    [kept] = await hw.policies.list()
    assert (kept.version, kept.policy.rules) == (2, ())
    tried = await hw.policies.test("web", "https://a.test/x", method="POST")
    assert not tried.decision.allowed
    with pytest.raises(ConfigError, match="TOML"):
        await hw.policies.put_toml("web", "name = ")
    await hw.policies.delete("web")
    with pytest.raises(NotFoundError):
        await hw.policies.get("web")


async def test_agents(hw: Handiwork) -> None:
    await hw.policies.put(POLICY)
    decided = await hw.agents.put("agent_1", tier="namespace", policy="web")
    assert await hw.agents.get("agent_1") == decided
    assert await hw.agents.list() == [decided]
    with pytest.raises(ConflictError, match="agent_1"):
        await hw.policies.delete("web")


async def test_secrets(hw: Handiwork) -> None:
    written = await hw.secrets.put("key", "sk-0123456789", hosts=["a.test"])
    assert await hw.secrets.list() == [written]
    with pytest.raises(ConfigError, match="hosts"):
        await hw.secrets.put("key", "sk-0123456789", hosts=[])
    await hw.secrets.delete("key")
    assert await hw.secrets.list() == []


async def test_audit(served: Served, hw: Handiwork) -> None:
    record = AuditRecord(
        id="aud_1", at=NOW, binding="b", kind="http", allowed=False, rules=("a:b/c",)
    )
    await served.store.audit.append([record], segment="s", position=1)
    assert await hw.audit.query(allowed=False) == [record]
    assert await hw.audit.query(allowed=True, session_id="sesn_1") == []


async def test_environments(hw: Handiwork) -> None:
    assert await hw.environments.list() == []


async def test_hooks(hw: Handiwork) -> None:
    works, broken = await hw.hooks.list()
    assert (works.stages, broken.stages) == (("request",), ())
