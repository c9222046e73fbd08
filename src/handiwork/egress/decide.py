"""The decision: does every layer permit this request, and what is then set on it.

Layers are compiled once per change of policy into rules indexed by host; a decision then walks
only the rules that speak of the request's host. Everything here is a pure function of its input.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

from handiwork.model.canonical import host_covers
from handiwork.model.errors import ConfigError
from handiwork.model.injection import Injection, claims_of
from handiwork.model.policy import (
    DEFAULT_PORTS,
    AllowRule,
    Decision,
    DenyRule,
    EgressRequest,
    HookRule,
    HookUse,
    InjectRule,
    Match,
    PolicyLayer,
    Rule,
    ServiceRule,
)

_HOSTS_REMEMBERED = 2048
_REQUEST_LINES_REMEMBERED = 64
_OUTCOMES_REMEMBERED = 4096
_UNASKED_METHODS = frozenset({"TRACE", "CONNECT"})
_ENCODED_SLASH = "%2F"
_PARAMETER = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")

Endpoint = tuple[str, int]
"""A scheme and a port."""


class _Compiled(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    label: str
    rule: Rule
    endpoints: frozenset[Endpoint]
    methods: frozenset[str] | None
    globs: tuple[tuple[str, ...], ...] | None
    denies: bool


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    label: str
    rules: tuple[_Compiled, ...]
    exact: dict[str, tuple[int, ...]]
    suffixes: dict[str, tuple[int, ...]]
    everywhere: tuple[int, ...]


Asked = tuple[str, int, str]
"""Scheme, port and method."""


class _Destination(msgspec.Struct, frozen=True, kw_only=True):
    """What all layers say of one host: its rules in order, and where a request might pass.

    `narrowed` remembers, for what was asked, the rules that only the path still decides on.
    """

    candidates: tuple[tuple[_Compiled, ...], ...]
    reachable: frozenset[Endpoint]
    narrowed: dict[Asked, tuple[tuple[_Compiled, ...], ...]]


def _glob_matches(pieces: tuple[str, ...], path: str) -> bool:
    """Match without backtracking, so that a hostile path costs no more than its length."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return path == first
    if not (path.startswith(first) and path.endswith(last)):
        return False
    start, end = len(first), len(path) - len(last)
    for piece in pieces[1:-1]:
        found = path.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return start <= end


def _endpoints(match: Match) -> frozenset[Endpoint]:
    return frozenset(
        (scheme, port)
        for scheme in match.schemes
        for port in (match.ports if match.ports is not None else (DEFAULT_PORTS[scheme],))
    )


def _compile_rule(layer: str, rule: Rule) -> _Compiled:
    match = rule.match
    return _Compiled(
        label=f"{layer}/{rule.id}",
        rule=rule,
        endpoints=_endpoints(match),
        methods=None if match.methods is None else frozenset(match.methods),
        globs=None if match.paths is None else tuple(tuple(g.split("*")) for g in match.paths),
        denies=isinstance(rule, DenyRule),
    )


def _compile_layer(layer: PolicyLayer) -> _Layer:
    label = f"{layer.scope}:{layer.policy.name}"
    exact: dict[str, list[int]] = {}
    suffixes: dict[str, list[int]] = {}
    everywhere: list[int] = []
    for place, rule in enumerate(layer.policy.rules):
        for pattern in dict.fromkeys(rule.match.hosts):
            if pattern == "*":
                everywhere.append(place)
            elif pattern.startswith("*."):
                suffixes.setdefault(pattern[1:], []).append(place)
            else:
                exact.setdefault(pattern, []).append(place)
    return _Layer(
        label=label,
        rules=tuple(_compile_rule(label, rule) for rule in layer.policy.rules),
        exact={host: tuple(places) for host, places in exact.items()},
        suffixes={host: tuple(places) for host, places in suffixes.items()},
        everywhere=tuple(everywhere),
    )


def _candidates(layer: _Layer, host: str) -> tuple[_Compiled, ...]:
    places = {*layer.exact.get(host, ()), *layer.everywhere}
    dot = host.find(".", 1)
    while dot >= 0:
        suffix = host[dot:]
        if suffix in layer.suffixes and host_covers("*" + suffix, host):
            places.update(layer.suffixes[suffix])
        dot = host.find(".", dot + 1)
    return tuple(layer.rules[place] for place in sorted(places))


def _reachable(candidates: Iterable[_Compiled]) -> frozenset[Endpoint]:
    """Return where some request might be permitted: endpoints not wholly denied before."""
    denied: set[Endpoint] = set()
    open_to: set[Endpoint] = set()
    for rule in candidates:
        if not rule.denies:
            open_to |= rule.endpoints - denied
        elif rule.methods is None and rule.globs is None:
            denied |= rule.endpoints
    return frozenset(open_to)


def _method_matches(rule: _Compiled, method: str) -> bool:
    if rule.methods is not None:
        return method in rule.methods
    return rule.denies or method not in _UNASKED_METHODS


def _unjudgeable(rule: _Compiled, path: str) -> bool:
    return rule.globs is not None and _ENCODED_SLASH in path


def _narrow(candidates: tuple[_Compiled, ...], asked: Asked) -> tuple[_Compiled, ...]:
    """Keep the rules for this endpoint and method, up to the first that takes every path."""
    kept: list[_Compiled] = []
    scheme, port, method = asked
    for rule in candidates:
        if (scheme, port) in rule.endpoints and _method_matches(rule, method):
            kept.append(rule)
            if rule.globs is None:
                break
    return tuple(kept)


def _first(narrowed: tuple[_Compiled, ...], path: str) -> _Compiled | None:
    """Return the rule that rules: the first that matches, or that cannot judge this path."""
    for rule in narrowed:
        if rule.globs is None or _unjudgeable(rule, path):
            return rule
        for pieces in rule.globs:
            if _glob_matches(pieces, path):
                return rule
    return None


def _judged_alike(narrowed: tuple[_Compiled, ...], path: str, winner: _Compiled) -> bool:
    """Say whether servers that drop `;…` from each segment would read a path of the same rule."""
    if ";" not in path or (winner.globs is None and winner is narrowed[0]):
        return True
    bare = _SLASHES.sub("/", _PARAMETER.sub("", path))
    return _first(narrowed, bare) is winner


def _asked(request: EgressRequest) -> str:
    host = f"[{request.host}]" if ":" in request.host else request.host
    return f"{request.method} {request.scheme}://{host}:{request.port}"


def _permission(winners: tuple[_Compiled, ...]) -> Decision:
    injections: list[Injection] = []
    hooks: list[HookUse] = []
    service = None
    for winner in winners:
        if isinstance(winner.rule, InjectRule | ServiceRule | HookRule):
            injections.extend(winner.rule.inject)
        if isinstance(winner.rule, HookRule):
            hooks.extend(_uses(winner.rule))
        if isinstance(winner.rule, ServiceRule):
            service = winner.rule.service
    return Decision(
        allowed=True,
        rules=tuple(winner.label for winner in winners),
        injections=tuple(injections),
        service=service,
        hooks=tuple(hooks),
    )


def _uses(rule: HookRule) -> list[HookUse]:
    return [
        HookUse(name=name, secrets=rule.secrets, body_bytes=rule.body_bytes) for name in rule.hooks
    ]


class Compiled:
    """What holds for one egress socket. It only remembers what it has derived, up to a limit."""

    def __init__(self, layers: tuple[_Layer, ...]) -> None:
        self._layers = layers
        self._destinations: dict[str, _Destination] = {}
        self._permissions: dict[tuple[str, ...], Decision] = {}

    def _destination(self, host: str) -> _Destination:
        found = self._destinations.get(host)
        if found is None:
            candidates = tuple(_candidates(layer, host) for layer in self._layers)
            sets = [_reachable(rules) for rules in candidates]
            reachable: frozenset[Endpoint] = frozenset.intersection(*sets) if sets else frozenset()
            found = _Destination(candidates=candidates, reachable=reachable, narrowed={})
            if len(self._destinations) >= _HOSTS_REMEMBERED:
                self._destinations.clear()
            self._destinations[host] = found
        return found

    def _narrowed(self, request: EgressRequest) -> tuple[tuple[_Compiled, ...], ...]:
        destination = self._destination(request.host)
        asked = (request.scheme, request.port, request.method)
        found = destination.narrowed.get(asked)
        if found is None:
            if len(destination.narrowed) >= _REQUEST_LINES_REMEMBERED:
                destination.narrowed.clear()
            found = tuple(_narrow(rules, asked) for rules in destination.candidates)
            destination.narrowed[asked] = found
        return found

    def decide(self, request: EgressRequest) -> Decision:
        """Return the decision on a canonical request; what no layer forbids and all permit passes."""
        if not self._layers:
            return Decision(allowed=False, rules=("default",), reason="no policy holds here")
        winners: list[_Compiled] = []
        labels: list[str] = []
        path = request.path
        for layer, narrowed in zip(self._layers, self._narrowed(request), strict=True):
            winner = _first(narrowed, path)
            if winner is None:
                reason = f"no rule of {layer.label} permits {_asked(request)}"
                return Decision(
                    allowed=False, rules=(*labels, f"{layer.label}/default"), reason=reason
                )
            labels.append(winner.label)
            if winner.denies or (winner.globs is not None and _unjudgeable(winner, path)):
                return self._refusal(winner, tuple(labels), request)
            if not _judged_alike(narrowed, path, winner):
                reason = f"rules of {layer.label} differ on the path with and without its ';…'"
                return Decision(allowed=False, rules=tuple(labels), reason=reason)
            winners.append(winner)
        return self._permitted(tuple(labels), tuple(winners))

    def _refusal(
        self, winner: _Compiled, labels: tuple[str, ...], request: EgressRequest
    ) -> Decision:
        if _unjudgeable(winner, request.path):
            reason = f"{winner.label} has paths, and cannot judge a path with an encoded slash"
        else:
            told = winner.rule.reason if isinstance(winner.rule, DenyRule) else ""
            reason = told or f"{winner.label} denies {_asked(request)}"
        return Decision(allowed=False, rules=labels, reason=reason)

    def _permitted(self, labels: tuple[str, ...], winners: tuple[_Compiled, ...]) -> Decision:
        found = self._permissions.get(labels)
        if found is None:
            if len(self._permissions) >= _OUTCOMES_REMEMBERED:
                self._permissions.clear()
            found = self._permissions[labels] = _permission(winners)
        return found

    def may_reach(self, host: str, *, scheme: str | None = None, port: int | None = None) -> bool:
        """Say whether some request to this canonical host could be permitted.

        For questions that come before a request exists: a DNS question, an SNI, a CONNECT.
        """
        return any(
            (scheme is None or scheme == open_scheme) and (port is None or port == open_port)
            for open_scheme, open_port in self._destination(host).reachable
        )

    def explain(self, request: EgressRequest) -> list[str]:
        """Return one line for each rule looked at, layer by layer, ending in the decision."""
        lines: list[str] = []
        destination = self._destination(request.host)
        for layer, candidates, narrowed in zip(
            self._layers, destination.candidates, self._narrowed(request), strict=True
        ):
            winner = _first(narrowed, request.path)
            others = len(layer.rules) - len(candidates)
            lines.append(f"{layer.label}: {others} of {len(layer.rules)} rules are for other hosts")
            lines.extend(_explain_layer(candidates, winner, request))
            if winner is None:
                lines.append(f"{layer.label}/default: no rule matched, denied")
        decision = self.decide(request)
        lines.append("allowed" if decision.allowed else f"denied: {decision.reason}")
        return lines


def _explain_layer(
    candidates: tuple[_Compiled, ...], winner: _Compiled | None, request: EgressRequest
) -> Iterator[str]:
    for rule in candidates:
        if rule is winner:
            yield f"{rule.label}: matches, {type(rule.rule).__struct_config__.tag}"
            return
        yield f"{rule.label}: does not match the {_mismatch(rule, request)}"


def _mismatch(rule: _Compiled, request: EgressRequest) -> str:
    if request.scheme not in rule.rule.match.schemes:
        return f"scheme {request.scheme}"
    if (request.scheme, request.port) not in rule.endpoints:
        return f"port {request.port}"
    if not _method_matches(rule, request.method):
        return f"method {request.method}"
    return f"path {request.path}"


def _patterns_meet(one: str, other: str) -> bool:
    if one == "*" or other == "*":
        return True
    if one.startswith("*.") and other.startswith("*."):
        return one.endswith(other[1:]) or other.endswith(one[1:])
    if one.startswith("*."):
        return host_covers(one, other)
    return host_covers(other, one)


def _globs_meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Say no only where it is certain: the fixed beginnings or ends differ."""
    starts = one[0].startswith(other[0]) or other[0].startswith(one[0])
    ends = one[-1].endswith(other[-1]) or other[-1].endswith(one[-1])
    if len(one) == 1:
        return _glob_matches(other, one[0])
    if len(other) == 1:
        return _glob_matches(one, other[0])
    return starts and ends


def _could_meet(one: _Compiled, other: _Compiled) -> bool:
    """Say whether one request could match both rules; when in doubt, yes."""
    if not one.endpoints & other.endpoints:
        return False
    if one.methods is not None and other.methods is not None and not one.methods & other.methods:
        return False
    if (
        one.globs is not None
        and other.globs is not None
        and not any(_globs_meet(a, b) for a in one.globs for b in other.globs)
    ):
        return False
    return any(_patterns_meet(a, b) for a in one.rule.match.hosts for b in other.rule.match.hosts)


def _claims(rule: Rule) -> set[str]:
    """Return what at most one layer may set: what it injects, and the destination."""
    if isinstance(rule, AllowRule | DenyRule):
        return set()
    claims = {claim for injection in rule.inject for claim in claims_of(injection)}
    return claims | ({"destination"} if isinstance(rule, ServiceRule) else set())


def _refuse_conflicts(layers: tuple[_Layer, ...]) -> None:
    """Raise ConfigError where rules of two layers could set the same thing on one request."""
    claimed: dict[str, list[tuple[int, _Compiled]]] = {}
    for place, layer in enumerate(layers):
        for rule in layer.rules:
            for claim in sorted(_claims(rule.rule)):
                for earlier_place, earlier in claimed.setdefault(claim, []):
                    if earlier_place != place and _could_meet(earlier, rule):
                        raise ConfigError(
                            f"{earlier.label} and {rule.label} could both set the {claim} of one"
                            " request: let only one layer set it, or make their matches disjoint"
                        )
                claimed[claim].append((place, rule))


def compile_layers(layers: tuple[PolicyLayer, ...]) -> Compiled:
    """Return what the layers say together; without any layer everything is denied.

    Raises ConfigError when two layers could inject one header, or name a destination, for the
    same request.
    """
    compiled = tuple(_compile_layer(layer) for layer in layers)
    _refuse_conflicts(compiled)
    return Compiled(compiled)
