"""`/api/policies`: write, read, withdraw and try policies."""

from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from handiwork.api.bodies import whole_body
from handiwork.api.control import Control, Injected
from handiwork.egress.decide import compile_layers
from handiwork.model.agent import AgentSettings
from handiwork.model.canonical import NotCanonical, canonical_path, split_authority
from handiwork.model.errors import ConfigError, ConflictError, SecretMissingError
from handiwork.model.policy import (
    DEFAULT_PORTS,
    EgressRequest,
    Policy,
    PolicyLayer,
    Scheme,
    hooks_named,
    parse_policy,
    secrets_named,
)
from handiwork.model.wire import Listing, PolicyTest, PolicyTestBody, PolicyVersion

MAX_BODY_BYTES = 1024 * 1024


@get("/")
async def list_policies(control: Injected) -> Listing[PolicyVersion]:
    """List the newest version of each policy."""
    rows = await control.store.policies.list()
    return Listing(
        data=tuple(
            PolicyVersion(policy=policy, version=version, updated_at=at)
            for policy, version, at in rows
        )
    )


@get("/{name:str}")
async def get_policy(control: Injected, name: FromPath[str]) -> Policy:
    """Return the newest version of a policy."""
    return await control.store.policies.get(name)


@put("/{name:str}", request_max_body_size=MAX_BODY_BYTES)
async def put_policy(
    control: Injected, request: Request[Any, Any, Any], name: FromPath[str]
) -> PolicyVersion:
    """Write a policy (JSON, or TOML as `application/toml`); holds at once where it is in force.

    SecretMissingError names a secret that a rule injects and that nobody set, ConfigError a hook
    that is not there.
    """
    policy = await _read(request)
    if policy.name != name:
        raise ConfigError(f"name: the policy calls itself {policy.name!r}, the path {name[:80]!r}")
    await _check_secrets(control, policy)
    await _check_hooks(control, policy)
    at = control.now()
    version = await control.store.policies.put(policy, at)
    await control.refresh(name)
    return PolicyVersion(policy=policy, version=version, updated_at=at)


@delete("/{name:str}", status_code=204)
async def delete_policy(control: Injected, name: FromPath[str]) -> None:
    """Withdraw a policy; ConflictError while settings or an agent name it."""
    users = await _users(control, name)
    if users:
        raise ConflictError(f"the policy {name!r} is in use by {', '.join(users[:10])}")
    await control.store.policies.delete(name)
    await control.refresh(name)


@post("/{name:str}/test", status_code=200)
async def try_policy(
    control: Injected, name: FromPath[str], data: JSONBody[PolicyTestBody]
) -> PolicyTest:
    """Decide on a request by this policy alone; nothing is sent."""
    policy = await control.store.policies.get(name)
    compiled = compile_layers((PolicyLayer(scope="tenant", policy=policy),))
    request = canonical_request(data.method, data.url)
    return PolicyTest(decision=compiled.decide(request), steps=tuple(compiled.explain(request)))


def canonical_request(method: str, url: str) -> EgressRequest:
    """Return the facts of a request to a URL; ConfigError when it has no canonical form."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
            raise ConfigError("url: must begin with https:// or http:// and a host")
        scheme: Scheme = "https" if parts.scheme == "https" else "http"
        host, port = split_authority(parts.netloc, DEFAULT_PORTS[scheme])
        path, _query = canonical_path(parts.path or "/")
    except NotCanonical as error:
        raise ConfigError(f"url: {error}") from None
    except ValueError:
        raise ConfigError("url: not a URL") from None
    return EgressRequest(scheme=scheme, host=host, port=port, method=method, path=path)


async def _read(request: Request[Any, Any, Any]) -> Policy:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        text = (await whole_body(request)).decode()
    except UnicodeDecodeError:
        raise ConfigError("policy: the body is not UTF-8") from None
    if media_type in ("application/toml", "text/toml"):
        return parse_policy(text, format="toml")
    if media_type == "application/json":
        return parse_policy(text, format="json")
    raise ConfigError("content-type: send application/json or application/toml")


async def _check_secrets(control: Control, policy: Policy) -> None:
    """SecretMissingError unless every secret that a rule names is there."""
    there = {info.name for info in await control.store.secrets.list()}
    for rule, name in secrets_named(policy):
        if name not in there:
            raise SecretMissingError(
                f"policy {policy.name!r}, rule {rule!r}: the secret {name!r} is not set;"
                f" set it first, with `handiwork secret set {name} --host HOST`"
            )


async def _check_hooks(control: Control, policy: Policy) -> None:
    """ConfigError unless every hook that a rule names is there and works."""
    named = list(hooks_named(policy))
    if not named:
        return
    if control.hooks is None:
        raise ConfigError(
            f"policy {policy.name!r}, rule {named[0][0]!r}: hooks are off;"
            " set hooks.enabled = true in handiwork.toml"
        )
    there = {info.name for info in await control.hooks.catalog() if info.stages}
    for rule, name in named:
        if name not in there:
            raise ConfigError(
                f"policy {policy.name!r}, rule {rule!r}: there is no hook {name!r} that works;"
                " `handiwork hook list` shows those there are, and why"
            )


def _agent(settings: AgentSettings) -> str:
    where = f" of {settings.environment_id}" if settings.environment_id else ""
    return f"agent {settings.agent_id}{where}"


async def _users(control: Control, name: str) -> list[str]:
    """Return who names the policy: settings and agents."""
    settings = control.settings
    named = [
        ("sandbox.policy", settings.sandbox.policy),
        ("egress.policy", settings.egress.policy),
        ("hooks.policy", settings.hooks.policy),
        *((f"environments[{e.id}].policy", e.policy) for e in settings.environments),
        *((_agent(a), a.policy) for a in await control.store.agents.list()),
    ]
    return [user for user, policy in named if policy == name]


routes = Router(
    "/api/policies",
    route_handlers=[list_policies, get_policy, put_policy, delete_policy, try_policy],
)
