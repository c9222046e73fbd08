"""What operators write and read: agents, policies, secrets, audit."""

from collections.abc import Mapping, Sequence

import msgspec

from handiwork.client.link import Link, part
from handiwork.model.agent import AgentSettings
from handiwork.model.audit import AuditRecord
from handiwork.model.environment import EnvironmentStatus
from handiwork.model.hook import HookInfo
from handiwork.model.policy import Policy
from handiwork.model.sandbox import Limits
from handiwork.model.secret import SecretInfo
from handiwork.model.wire import (
    AgentBody,
    Listing,
    PolicyTest,
    PolicyTestBody,
    PolicyVersion,
    SecretBody,
)


class Agents:
    """`hw.agents`: tier, policy and variables of an agent of the brain."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[AgentSettings]:
        """List what was decided."""
        return list((await self._link.get("/api/agents", Listing[AgentSettings])).data)

    async def get(self, agent_id: str, *, environment: str = "") -> AgentSettings:
        """Find one; NotFoundError when nothing was decided.

        `environment` may be left out where only one is served.
        """
        query = {"environment": environment}
        return await self._link.get(f"/api/agents/{part(agent_id)}", AgentSettings, query)

    async def put(  # noqa: PLR0913  what may be decided, each with a default
        self,
        agent_id: str,
        *,
        environment: str = "",
        tier: str = "",
        policy: str = "",
        image: str = "",
        size: str = "",
        limits: Limits | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> AgentSettings:
        """Decide; empty is the environment's. `variables` map names to secrets.

        `environment` may be left out where only one is served; another's agent of this id is not meant.
        """
        body = AgentBody(
            environment=environment,
            tier=tier,
            policy=policy,
            image=image,
            size=size,
            limits=limits,
            variables=variables or {},
        )
        return await self._link.send("PUT", f"/api/agents/{part(agent_id)}", AgentSettings, body)


class Environments:
    """`hw.environments`: whose work is claimed, and how that stands."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[EnvironmentStatus]:
        """List them: state, reason, queue, leases held, sessions served."""
        answer = await self._link.get("/api/environments", Listing[EnvironmentStatus])
        return list(answer.data)


class Policies:
    """`hw.policies`: what may leave a sandbox."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[PolicyVersion]:
        """List the newest version of each."""
        return list((await self._link.get("/api/policies", Listing[PolicyVersion])).data)

    async def get(self, name: str) -> Policy:
        """Find one; NotFoundError."""
        return await self._link.get(f"/api/policies/{part(name)}", Policy)

    async def put(self, policy: Policy) -> PolicyVersion:
        """Write one; it holds at once where it is in force."""
        path = f"/api/policies/{part(policy.name)}"
        return await self._link.send("PUT", path, PolicyVersion, policy)

    async def put_toml(self, name: str, text: str) -> PolicyVersion:
        """Write one from TOML, whose name must be this one."""
        answer = await self._link.raw(
            "PUT",
            f"/api/policies/{part(name)}",
            content=text.encode(),
            media_type="application/toml",
        )
        return msgspec.json.decode(answer, type=PolicyVersion)

    async def delete(self, name: str) -> None:
        """Withdraw one; ConflictError while it is in use."""
        await self._link.send("DELETE", f"/api/policies/{part(name)}", type(None))

    async def test(self, name: str, url: str, *, method: str = "GET") -> PolicyTest:
        """Say what the policy alone would decide; nothing is sent."""
        body = PolicyTestBody(url=url, method=method)
        return await self._link.send("POST", f"/api/policies/{part(name)}/test", PolicyTest, body)


class Secrets:
    """`hw.secrets`: written, never read."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[SecretInfo]:
        """List names, versions and hosts."""
        return list((await self._link.get("/api/secrets", Listing[SecretInfo])).data)

    async def put(self, name: str, value: str, *, hosts: Sequence[str]) -> SecretInfo:
        """Write a value, to be sent to these hosts and nowhere else."""
        body = SecretBody(value=value, hosts=tuple(hosts))
        return await self._link.send("PUT", f"/api/secrets/{part(name)}", SecretInfo, body)

    async def delete(self, name: str) -> None:
        """Forget one."""
        await self._link.send("DELETE", f"/api/secrets/{part(name)}", type(None))


class Audit:
    """`hw.audit`: what the egress proxy decided."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def query(
        self,
        *,
        session_id: str | None = None,
        sandbox_id: str | None = None,
        allowed: bool | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """List decisions, newest first."""
        query = {
            "session_id": session_id,
            "sandbox_id": sandbox_id,
            "allowed": allowed,
            "limit": limit,
        }
        return list((await self._link.get("/api/audit", Listing[AuditRecord], query)).data)


class Hooks:
    """`hw.hooks`: the operator's Python that requests pass where a rule says so."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[HookInfo]:
        """List them, with why a file as it is now is not in force."""
        return list((await self._link.get("/api/hooks", Listing[HookInfo])).data)
