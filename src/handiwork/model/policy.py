"""Policy: ordered rules, first match wins, default deny; and what deciding on a request gives.

A policy is read from TOML or JSON with `parse_policy`, which rejects it whole for any unknown key,
bad pattern or unknown action. An empty list means nothing: a rule without hosts matches nothing.
"""

from typing import Literal

import msgspec

Scheme = Literal["https", "http"]
Scope = Literal["global", "tenant", "environment", "agent", "session", "tool"]

DEFAULT_PORTS = {"https": 443, "http": 80}


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule speaks of; every field given must match.

    `hosts`: exact canonical names, `*.example.com` (not the apex), or `*`. `ports` absent: the
    scheme's default port. `methods` absent: any but TRACE and CONNECT. `paths` absent: any;
    else globs on the normalised path where `*` spans any characters.
    """

    hosts: tuple[str, ...]
    schemes: tuple[Scheme, ...] = ("https",)
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None


class Injection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set `header` to `value`, in which `${secret:NAME}` stands for a secret; replaces the client's."""

    header: str
    value: str


class ServiceTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fixed place that a name stands for; `trust_anchor` (PEM) replaces the public roots."""

    name: str
    address: str
    port: int
    trust_anchor: str | None = None


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    match: Match


class AllowRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="allow"):
    """Let the request through as it is."""


class DenyRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="deny"):
    """Refuse; `reason` is told to the guest."""

    reason: str = ""


class InjectRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="inject"):
    """Let it through with headers set; only over https."""

    inject: tuple[Injection, ...]


class ServiceRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="service"):
    """Let it through to one fixed address, which may be private; `inject` as in InjectRule."""

    service: ServiceTarget
    inject: tuple[Injection, ...] = ()


Rule = AllowRule | DenyRule | InjectRule | ServiceRule


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named, ordered list of rules."""

    name: str
    rules: tuple[Rule, ...]
    description: str = ""


class PolicyLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of what holds for a sandbox. Absent layers abstain, every present one must permit."""

    scope: Scope
    policy: Policy


class EgressRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one request, canonical: lower-case host without trailing dot, normalised path."""

    scheme: Scheme
    host: str
    port: int
    method: str
    path: str
    tool: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided. `rules` names `scope:policy/rule` for each layer that spoke.

    On a refusal the last of `rules` is the one that refused (`…/default` where no rule matched)
    and `reason` says why in words.
    """

    allowed: bool
    rules: tuple[str, ...]
    reason: str = ""
    injections: tuple[Injection, ...] = ()
    service: ServiceTarget | None = None
