"""What holds for a sandbox: the layers that the operator wrote, and the sealed secrets they name."""

from collections.abc import Mapping

import msgspec

from handiwork.config import EnvironmentSettings, Settings
from handiwork.egress.decide import compile_layers
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import ConfigError, NotFoundError, SecretMissingError
from handiwork.model.policy import PolicyLayer, Scope, secrets_named
from handiwork.model.run import Run, run_id_of
from handiwork.model.sandbox import Limits, SandboxRecord, limits_of
from handiwork.model.secret import SealedSecret
from handiwork.sessions.agents import settings_of
from handiwork.store.protocol import Store

NOTHING = EgressGrant(layers=())
"""Permits nothing: what a way out gets when its policies cannot be resolved."""


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the policies that hold, widest scope first; absent scopes abstain."""

    names: tuple[tuple[Scope, str], ...]

    def __contains__(self, policy: str) -> bool:
        return any(name == policy for _, name in self.names)


class PolicyResolver:
    """Finds the layers of a sandbox by today's settings and store."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        environments: Mapping[str, EnvironmentSettings] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._environments = (
            {one.id: one for one in settings.environments} if environments is None else environments
        )

    def environment(self, environment_id: str) -> EnvironmentSettings | None:
        """Return the settings of an environment that we serve."""
        return self._environments.get(environment_id)

    async def tier(self, environment_id: str, agent_id: str, session_id: str = "") -> str:
        """Return the tier: the run's, else the agent's, its environment's, the default.

        ConfigError as of `settings_of`.
        """
        run = await self._run(session_id, environment_id)
        if run is not None and run.tier:
            return run.tier
        agent = await settings_of(self._store.agents, environment_id, agent_id)
        environment = self._environments.get(environment_id)
        return (
            (agent.tier if agent else "")
            or (environment.tier if environment else "")
            or self._settings.sandbox.tier
        )

    async def machine(self, environment_id: str, agent_id: str) -> tuple[str, Limits | None]:
        """Return image and limits: the agent's, else its environment's; empty, None: the default.

        ConfigError as of `settings_of`.
        """
        agent = await settings_of(self._store.agents, environment_id, agent_id)
        environment = self._environments.get(environment_id)
        of_environment = environment.image if environment else ""
        if agent is None:
            return of_environment, None
        return agent.image or of_environment, limits_of(agent.size, agent.limits)

    async def layers(self, record: SandboxRecord) -> Layers:
        """Return what holds: global, the environment's, the agent's, the sandbox's own."""
        environment_policy = run_policy = ""
        agent = None
        if record.session_id:
            session = await self._store.sessions.get(record.session_id)
            run = await self._run(session.id, session.environment_id)
            run_policy = run.policy if run else ""
            environment = self._environments.get(session.environment_id)
            environment_policy = environment.policy if environment else ""
            agent = await settings_of(self._store.agents, session.environment_id, record.agent_id)
        own = record.policy or run_policy
        if not record.session_id:
            own = own or self._settings.sandbox.policy
        scoped: tuple[tuple[Scope, str], ...] = (
            ("global", self._settings.egress.policy),
            ("environment", environment_policy),
            ("agent", agent.policy if agent else ""),
            ("session", own),
        )
        return Layers(names=tuple((scope, name) for scope, name in scoped if name))

    async def _run(self, session_id: str, environment_id: str) -> Run | None:
        """Return the run whose session this is: what the operator chose for it alone.

        Another brain may give a session an id from which the same run's id follows.
        """
        try:
            run = await self._store.runs.get(run_id_of(session_id))
        except NotFoundError:
            return None
        is_its_own = (run.session_id, run.environment_id) == (session_id, environment_id)
        return run if is_its_own else None

    async def grant(self, layers: Layers) -> EgressGrant:
        """Read the policies and their secrets.

        ConfigError when a policy is missing or contradicts another; SecretMissingError names the
        secret. Without any layer nothing is permitted.
        """
        found = tuple([await self._layer(scope, name) for scope, name in layers.names])
        compile_layers(found)
        return EgressGrant(layers=found, secrets=await self._secrets(found))

    async def _layer(self, scope: Scope, name: str) -> PolicyLayer:
        try:
            policy = await self._store.policies.get(name)
        except NotFoundError:
            raise ConfigError(
                f"the {scope} policy {name!r} does not exist;"
                " write it with `handiwork policy apply FILE`"
            ) from None
        return PolicyLayer(scope=scope, policy=policy)

    async def _secrets(self, layers: tuple[PolicyLayer, ...]) -> tuple[SealedSecret, ...]:
        wanted = sorted(_named(layers))
        sealed = await self._store.secrets.sealed(wanted) if wanted else []
        missing = set(wanted) - {secret.name for secret in sealed}
        if missing:
            raise SecretMissingError(
                f"the secret {min(missing)!r} that a policy names is not set;"
                f" set it with `handiwork secret set {min(missing)}`"
            )
        return tuple(sealed)


def _named(layers: tuple[PolicyLayer, ...]) -> set[str]:
    return {name for layer in layers for _, name in secrets_named(layer.policy)}
