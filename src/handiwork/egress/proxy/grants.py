"""What a binding may do now: its compiled policy, and the values its rules set, opened when asked."""

import msgspec

from handiwork.egress.decide import Compiled, compile_layers
from handiwork.egress.mask import Mask
from handiwork.egress.secrets import Opener
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import SecretMissingError
from handiwork.model.policy import DEFAULT_PORTS, Decision, DenyRule
from handiwork.model.secret import SealedSecret, fill, permits, references

_MAX_REMEMBERED = 1024


class Injected(msgspec.Struct, frozen=True):
    """Headers to set, which secrets stand in them, and a mask that knows the secrets."""

    headers: tuple[tuple[bytes, bytes], ...]
    names: tuple[str, ...]
    mask: Mask

    def __repr__(self) -> str:
        return f"Injected({', '.join(self.names)})"


NOTHING = Injected((), (), Mask(()))


class Granted:
    """One grant in force. Opened values live here and are dropped with it."""

    def __init__(self, grant: EgressGrant, tenant: str, opener: Opener) -> None:
        self.policy: Compiled = compile_layers(grant.layers)
        self.ports = _ports(grant)
        self._tenant = tenant
        self._opener = opener
        self._sealed: dict[str, SealedSecret] = {secret.name: secret for secret in grant.secrets}
        self._opened: dict[tuple[tuple[str, ...], str], Injected] = {}

    def injected(self, decision: Decision, host: str) -> Injected:
        """Return what the decision sets on a request to the host; SecretMissingError says why not."""
        if not decision.injections:
            return NOTHING
        key = (decision.rules, host)
        found = self._opened.get(key)
        if found is None:
            if len(self._opened) >= _MAX_REMEMBERED:
                self._opened.clear()
            found = self._opened[key] = self._open(decision, host)
        return found

    def _open(self, decision: Decision, host: str) -> Injected:
        wanted = [references(injection.value) for injection in decision.injections]
        values = {name: self._value(name, host) for names in wanted for name in names}
        headers = tuple(
            (
                injection.header.lower().encode("ascii"),
                fill(injection.value, values).encode("ascii"),
            )
            for injection in decision.injections
        )
        return Injected(headers, tuple(values), Mask([value.encode() for value in values.values()]))

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
