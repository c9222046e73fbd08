"""What a binding may do now: its compiled policy, and the values its rules set, opened when asked."""

import msgspec

from handiwork.egress.decide import Compiled, compile_layers
from handiwork.egress.injecting import Written, written
from handiwork.egress.mask import Mask
from handiwork.egress.secrets import Opener
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import SecretMissingError
from handiwork.model.injection import secrets_of
from handiwork.model.policy import DEFAULT_PORTS, Decision, DenyRule
from handiwork.model.redacted import shown_as_repr
from handiwork.model.secret import SealedSecret, permits

_MAX_REMEMBERED = 1024
_Asked = tuple[tuple[str, ...], str, tuple[bytes, ...], tuple[str, ...]]


class Injected(msgspec.Struct, frozen=True):
    """What to set, which secrets stand in them, and a mask that knows the secrets.

    `replaced` are the placeholders that give way to a value in the fields that the guest sends.
    """

    written: Written
    names: tuple[str, ...]
    mask: Mask
    replaced: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        return f"Injected({', '.join(self.names)})"

    __rich_repr__ = shown_as_repr

    def filled(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the guest's fields with values in the place of placeholders."""
        for text, value in self.replaced:
            fields = [(name, given.replace(text, value)) for name, given in fields]
        return fields


NOTHING = Injected(Written(), (), Mask(()))


class Granted:
    """One grant in force. Opened values live here and are dropped with it."""

    def __init__(self, grant: EgressGrant, tenant: str, opener: Opener) -> None:
        self.policy: Compiled = compile_layers(grant.layers)
        self.ports = _ports(grant)
        self._tenant = tenant
        self._opener = opener
        self._sealed: dict[str, SealedSecret] = {secret.name: secret for secret in grant.secrets}
        self._standing: dict[bytes, SealedSecret] = {
            one.text.encode(): one.sealed for one in grant.placeholders
        }
        self._opened: dict[_Asked, Injected] = {}

    def foreign(self, placeholders: tuple[bytes, ...]) -> bool:
        """Say whether one of them is not of this way out."""
        return not self._standing.keys() >= set(placeholders)

    def meant(self, placeholders: tuple[bytes, ...], host: str) -> tuple[bytes, ...]:
        """Return those whose secret may be sent to the host; elsewhere they are mere text."""
        return tuple(
            text
            for text in placeholders
            if text in self._standing and permits(self._standing[text], host)
        )

    def told(self, names: tuple[str, ...], host: str) -> dict[str, str]:
        """Return secrets for hooks on a request to the host; SecretMissingError says why not."""
        return {name: self._value(name, host) for name in names}

    def injected(
        self,
        decision: Decision,
        host: str,
        meant: tuple[bytes, ...] = (),
        told: tuple[str, ...] = (),
    ) -> Injected:
        """Return what the decision sets on a request to the host, and what `meant` stands for.

        Secrets that hooks were `told` may be anywhere in it: they must be for the host, and are
        masked. SecretMissingError says why not.
        """
        if not decision.injections and not meant and not told:
            return NOTHING
        key = (decision.rules, host, meant, told)
        found = self._opened.get(key)
        if found is None:
            if len(self._opened) >= _MAX_REMEMBERED:
                self._opened.clear()
            found = self._opened[key] = self._open(decision, host, meant, told)
        return found

    def _open(
        self, decision: Decision, host: str, meant: tuple[bytes, ...], told: tuple[str, ...]
    ) -> Injected:
        wanted = [*(secrets_of(injection) for injection in decision.injections), told]
        values = {name: self._value(name, host) for names in wanted for name in names}
        sets = written(decision.injections, values)
        replaced = tuple((text, self._stood_for(text)) for text in meant)
        names = (*values, *(self._standing[text].name for text in meant))
        known = [value.encode() for _, value in sets.query]
        known += [*(value.encode() for value in values.values()), *(value for _, value in replaced)]
        return Injected(sets, tuple(dict.fromkeys(names)), Mask(known), replaced)

    def _stood_for(self, text: bytes) -> bytes:
        sealed = self._standing[text]
        if sealed.tenant != self._tenant:
            raise SecretMissingError(f"the secret {sealed.name} is not there")
        value = self._opener.open(sealed).reveal()
        if not (value.isascii() and value.isprintable()):
            raise SecretMissingError(f"the secret {sealed.name} cannot stand in a header")
        return value.encode("ascii")

    def _value(self, name: str, host: str) -> str:
        sealed = self._sealed.get(name)
        if sealed is None or sealed.tenant != self._tenant:
            raise SecretMissingError(f"the secret {name} is not there")
        if not permits(sealed, host):
            raise SecretMissingError(f"the secret {name} is not for {host}")
        return self._opener.open(sealed).reveal()


def _ports(grant: EgressGrant) -> frozenset[int]:
    """Return every port that some rule of the grant could permit."""
    return frozenset(
        port
        for layer in grant.layers
        for rule in layer.policy.rules
        if not isinstance(rule, DenyRule)
        for port in (rule.match.ports or [DEFAULT_PORTS[scheme] for scheme in rule.match.schemes])
    )
