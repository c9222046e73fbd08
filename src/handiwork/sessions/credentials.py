"""Which placeholders stand in a session's sandbox: for secrets that it brings along, and for those
that the operator gives its agent.

A placeholder's text is drawn once for a session and a variable, and kept: it stays the same over
sleep and wake, and a credential that is withdrawn leaves a text that means nothing.
"""

import secrets
from collections.abc import Callable, Sequence

from handiwork.model.errors import ConfigError, SecretMissingError
from handiwork.model.placeholder import (
    ENTROPY_BYTES,
    MAX_PLACEHOLDERS,
    Credential,
    KeptPlaceholder,
    Placeholder,
    check_variable,
    new_placeholder,
)
from handiwork.model.sandbox import SandboxRecord
from handiwork.model.secret import SealedSecret
from handiwork.sandboxes.commands import DEFAULT_ENV
from handiwork.sessions.agents import settings_of
from handiwork.store.protocol import Store

_RESERVED_PREFIXES = ("ANTHROPIC_", "LD_", "HANDIWORK_")


class Credentials:
    """Keeps placeholders and resolves them to today's secrets. `entropy` draws random bytes."""

    def __init__(self, store: Store, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._store = store
        self._entropy = entropy

    async def learn(self, session_id: str, brought: Sequence[Credential]) -> list[str]:
        """Take in all that a session brings along; what it does not bring any more is withdrawn.

        Returns why a credential was left out, one line each; the others hold.
        """
        kept = {one.variable: one for one in await self._store.placeholders.list(session_id)}
        refused: list[str] = []
        given: dict[str, SealedSecret] = {}
        for credential in brought:
            reason = _refusal(credential.variable, given)
            if reason:
                refused.append(reason)
            else:
                given[credential.variable] = credential.sealed
        for variable in sorted({*kept, *given}):
            before = kept.get(variable)
            after = self._renewed(variable, before, given.get(variable))
            if after != before:
                await self._store.placeholders.put(session_id, after)
        return refused

    async def standing(self, record: SandboxRecord) -> tuple[Placeholder, ...]:
        """Return what stands in a sandbox. SecretMissingError names an operator's secret not set."""
        if not record.session_id:
            return ()
        kept = {one.variable: one for one in await self._store.placeholders.list(record.session_id)}
        found = {name: one.sealed for name, one in kept.items() if one.sealed is not None}
        found |= await self._of_agent(record)
        for variable in sorted(found.keys() - kept.keys()):
            kept[variable] = self._renewed(variable, None, None)
            await self._store.placeholders.put(record.session_id, kept[variable])
        return tuple(
            Placeholder(variable=variable, text=kept[variable].text, sealed=sealed)
            for variable, sealed in sorted(found.items())
        )

    async def _of_agent(self, record: SandboxRecord) -> dict[str, SealedSecret]:
        if not record.agent_id:
            return {}
        session = await self._store.sessions.get(record.session_id)
        settings = await settings_of(self._store.agents, session.environment_id, record.agent_id)
        if settings is None or not settings.variables:
            return {}
        names = sorted(set(settings.variables.values()))
        sealed = {one.name: one for one in await self._store.secrets.sealed(names)}
        if missing := sorted(set(names) - sealed.keys()):
            raise SecretMissingError(
                f"the secret {missing[0]!r} that a variable of the agent names is not set;"
                f" set it with `handiwork secret set {missing[0]}`"
            )
        return {variable: sealed[name] for variable, name in settings.variables.items()}

    def _renewed(
        self, variable: str, before: KeptPlaceholder | None, sealed: SealedSecret | None
    ) -> KeptPlaceholder:
        text = before.text if before else new_placeholder(self._entropy(ENTROPY_BYTES))
        return KeptPlaceholder(variable=variable, text=text, sealed=sealed)


def check_variables(names: Sequence[str]) -> None:
    """ConfigError for a name that a sandbox's own environment needs, or that is none."""
    taken: dict[str, None] = {}
    for name in names:
        if reason := _refusal(name, taken):
            raise ConfigError(reason)
        taken[name] = None


def _refusal(variable: str, taken: dict[str, SealedSecret] | dict[str, None]) -> str:
    try:
        check_variable(variable)
    except ConfigError as error:
        return str(error)
    if variable in DEFAULT_ENV or variable.startswith(_RESERVED_PREFIXES):
        return f"variable {variable!r} is the sandbox's own; choose another name"
    if variable in taken:
        return f"variable {variable!r} is given twice; the first holds"
    if len(taken) >= MAX_PLACEHOLDERS:
        return f"variable {variable!r} is one too many; a session has at most {MAX_PLACEHOLDERS}"
    return ""
