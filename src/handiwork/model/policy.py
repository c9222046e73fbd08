"""Policy: ordered rules, first match wins, default deny; and what deciding on a request gives.

A policy is read from TOML or JSON with `parse_policy`, which rejects it whole for any unknown key,
bad pattern or unknown action. An empty list means nothing: a rule without hosts matches nothing.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Literal, NoReturn, get_args

import msgspec

from handiwork.model.canonical import NotCanonical, canonical_path, check_pattern
from handiwork.model.errors import ConfigError
from handiwork.model.hook import MAX_HOOK_BODY_BYTES, is_hook_name
from handiwork.model.ids import check_name
from handiwork.model.injection import Injection, check_injections, secrets_of, with_kind
from handiwork.model.sandbox import TIERS

Scheme = Literal["https", "http"]
Scope = Literal["global", "tenant", "environment", "agent", "session", "tool"]

DEFAULT_PORTS = {"https": 443, "http": 80}

MAX_POLICY_CHARS = 1024 * 1024
MAX_RULES = 2000
MAX_HOOKS_OF_A_RULE = 8

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule speaks of; every field given must match.

    `hosts`: exact canonical names, `*.example.com` (not the apex), or `*`. `ports` absent: the
    scheme's default port. `methods` absent: any but TRACE and CONNECT (in a deny rule: any).
    `paths` absent: any; else globs on the normalised path where `*` spans any characters.
    """

    hosts: tuple[str, ...]
    schemes: tuple[Scheme, ...] = ("https",)
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None


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
    """Let it through with what `inject` sets; only over https."""

    inject: tuple[Injection, ...]


class ServiceRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="service"):
    """Let it through to one fixed address, which may be private; `inject` as in InjectRule."""

    service: ServiceTarget
    inject: tuple[Injection, ...] = ()


class HookRule(_Rule, frozen=True, kw_only=True, tag_field="action", tag="hook"):
    """Let it through if the hooks do, in this order; `inject` as in InjectRule, after them.

    They may read the `secrets` named, where these may be sent to the request's host, and bodies of
    at most `body_bytes`: larger ones are refused. With 0 they see none, and bodies stream by.
    """

    hooks: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    body_bytes: int = 0
    inject: tuple[Injection, ...] = ()


Rule = AllowRule | DenyRule | InjectRule | ServiceRule | HookRule


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named, ordered list of rules. No sandbox of a tier weaker than `minimum_tier` runs under it."""

    name: str
    rules: tuple[Rule, ...]
    description: str = ""
    minimum_tier: str = ""


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


class HookUse(msgspec.Struct, frozen=True, kw_only=True):
    """A hook that a request and its answer pass, and what the rule grants it."""

    name: str
    secrets: tuple[str, ...] = ()
    body_bytes: int = 0


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
    hooks: tuple[HookUse, ...] = ()


def _reject(where: str, message: str) -> NoReturn:
    raise ConfigError(f"{where}: {message}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice in one object")
    return found


def _load(text: str, form: Literal["toml", "json"]) -> object:
    if len(text) > MAX_POLICY_CHARS:
        _reject("policy", f"longer than {MAX_POLICY_CHARS} characters: split it")
    try:
        if form == "json":
            return json.loads(text, object_pairs_hook=_unique_keys)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        _reject("policy", f"not readable as {form.upper()}: {error}")


def parse_policy(text: str, *, format: Literal["toml", "json"]) -> Policy:
    """Return the policy that the text describes, checked; ConfigError rejects it as a whole.

    The message names the policy, the rule and the field, and what to write there.
    """
    raw = _load(text, format)
    if not isinstance(raw, dict):
        _reject("policy", "must be a table with name and rules")
    name = raw.get("name")
    where = f"policy {name[:80]!r}" if isinstance(name, str) else "policy"
    entries = raw.get("rules")
    if not isinstance(entries, list):
        _reject(where, "rules must be a list; write an empty one to deny everything")
    if len(entries) > MAX_RULES:
        _reject(where, f"more than {MAX_RULES} rules")
    rules = tuple(_parse_rule(where, place, entry) for place, entry in enumerate(entries, 1))
    try:
        shell = msgspec.convert({**raw, "rules": []}, Policy)
    except msgspec.ValidationError as error:
        _reject(where, str(error))
    return check_policy(msgspec.structs.replace(shell, rules=rules))


def stored_policy(body: str) -> Policy:
    """Return a policy that was checked when it was written, from its JSON."""
    raw = msgspec.json.decode(body)
    rules = [with_kind(entry) for entry in raw["rules"]]
    return msgspec.convert({**raw, "rules": rules}, Policy)


def _parse_rule(where: str, place: int, entry: object) -> Rule:
    name = entry.get("id") if isinstance(entry, dict) else None
    where += f", rule {name[:80]!r}" if isinstance(name, str) else f", rule number {place}"
    try:
        return msgspec.convert(with_kind(entry), Rule)  # type: ignore[no-any-return]  # a union has no type of its own
    except msgspec.ValidationError as error:
        _reject(where, str(error))


def check_policy(policy: Policy) -> Policy:
    """Return the policy unchanged if every part of it can hold; else ConfigError."""
    check_name("policy", policy.name)
    if policy.minimum_tier and policy.minimum_tier not in TIERS:
        _reject(
            f"policy {policy.name!r}, minimum_tier",
            f"{policy.minimum_tier[:80]!r} is no tier: use one of {', '.join(TIERS)}",
        )
    seen: set[str] = set()
    for place, rule in enumerate(policy.rules, 1):
        where = f"policy {policy.name!r}, rule {rule.id[:80]!r}"
        try:
            check_name("rule", rule.id)
        except ConfigError as error:
            _reject(f"policy {policy.name!r}, rule number {place}, id", str(error))
        if rule.id == "default":
            _reject(f"{where}, id", "'default' stands for no rule at all: choose another")
        if rule.id in seen:
            _reject(f"{where}, id", "used twice: give each rule its own")
        seen.add(rule.id)
        _check_match(where, rule.match)
        _check_action(where, rule)
    return policy


def _check_match(where: str, match: Match) -> None:
    for pattern in match.hosts:
        try:
            check_pattern(pattern)
        except NotCanonical as error:
            _reject(f"{where}, match.hosts", f"{error}; use a name, '*.' and a name, or '*'")
    for scheme in match.schemes:
        if scheme not in get_args(Scheme):
            _reject(f"{where}, match.schemes", f"{scheme!r} is neither https nor http")
    for port in match.ports or ():
        if not 1 <= port <= 65535:
            _reject(f"{where}, match.ports", f"{port} is not a port: use 1 to 65535")
    for method in match.methods or ():
        if not _METHOD.fullmatch(method):
            _reject(f"{where}, match.methods", f"{method[:40]!r}: write methods in capitals")
    for glob in match.paths or ():
        _check_glob(f"{where}, match.paths", glob)


def _check_glob(where: str, glob: str) -> None:
    if not glob.startswith(("/", "*")):
        _reject(where, f"{glob[:80]!r} must start with '/' or '*'")
    target = glob if glob.startswith("/") else "/" + glob
    try:
        path, _ = canonical_path(target)
    except NotCanonical as error:
        _reject(where, str(error))
    if "?" in glob:
        _reject(where, f"{glob[:80]!r} speaks of a query: rules judge paths only")
    if path != target:
        written = path if glob.startswith("/") else path[1:]
        _reject(where, f"{glob[:80]!r} can never match: write {written[:80]!r}")
    if "%2F" in path:
        _reject(where, f"{glob[:80]!r} has an encoded slash, which no rule may judge")


def _check_action(where: str, rule: Rule) -> None:
    if isinstance(rule, DenyRule) and not (rule.reason.isprintable() and len(rule.reason) <= 500):
        _reject(f"{where}, reason", "use at most 500 printable characters on one line")
    if isinstance(rule, HookRule):
        _check_hooks(where, rule)
    if isinstance(rule, InjectRule | ServiceRule | HookRule) and rule.inject:
        check_injections(where, rule.inject)
        if "http" in rule.match.schemes:
            _reject(
                f"{where}, match.schemes", "injects, and injects never in clear: use https only"
            )
    if isinstance(rule, ServiceRule):
        _check_service(f"{where}, service", rule.service)


def _check_hooks(where: str, rule: HookRule) -> None:
    if not 1 <= len(rule.hooks) <= MAX_HOOKS_OF_A_RULE or len({*rule.hooks}) != len(rule.hooks):
        _reject(f"{where}, hooks", f"name 1 to {MAX_HOOKS_OF_A_RULE} hooks, each once")
    for name in rule.hooks:
        if not is_hook_name(name):
            _reject(f"{where}, hooks", f"{name[:80]!r} is no hook: use its file's name without .py")
    for secret in rule.secrets:
        check_name(f"{where}, secrets: secret", secret)
    if not 0 <= rule.body_bytes <= MAX_HOOK_BODY_BYTES:
        _reject(f"{where}, body_bytes", f"use 0 to {MAX_HOOK_BODY_BYTES}")
    if rule.secrets and "http" in rule.match.schemes:
        _reject(
            f"{where}, match.schemes", "grants secrets, and these never go in clear: https only"
        )


def _check_service(where: str, service: ServiceTarget) -> None:
    try:
        check_name("service", service.name)
    except ConfigError as error:
        _reject(f"{where}.name", str(error))
    try:
        address = ip_address(service.address if "%" not in service.address else "")
    except ValueError:
        _reject(
            f"{where}.address",
            f"{service.address[:80]!r} is not an IP address: names are not resolved",
        )
    if address.is_unspecified or address.is_multicast:
        _reject(f"{where}.address", f"{service.address!r} is no single destination")
    if not 1 <= service.port <= 65535:
        _reject(f"{where}.port", f"{service.port} is not a port: use 1 to 65535")
    if service.trust_anchor is not None and not _is_certificates(service.trust_anchor):
        _reject(f"{where}.trust_anchor", "not one or more certificates in PEM form")


def _is_certificates(pem: str) -> bool:
    # Imported here: few who import the nouns read a trust anchor, and loading it takes long.
    from cryptography import x509

    try:
        return len(x509.load_pem_x509_certificates(pem.encode("ascii"))) > 0
    except ValueError:
        return False


def secrets_named(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield (rule id, secret name) for each secret that a rule refers to, in order."""
    for rule in policy.rules:
        if isinstance(rule, HookRule):
            for name in rule.secrets:
                yield rule.id, name
        if isinstance(rule, InjectRule | ServiceRule | HookRule):
            for injection in rule.inject:
                for name in secrets_of(injection):
                    yield rule.id, name


def hooks_named(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield (rule id, hook name) for each hook that a rule refers to, in order."""
    for rule in policy.rules:
        if isinstance(rule, HookRule):
            for name in rule.hooks:
                yield rule.id, name
