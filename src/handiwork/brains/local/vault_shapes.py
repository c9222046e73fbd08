"""The bodies of requests about vaults and their credentials."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.shapes import Body, Metadata, MetadataPatch, decode
from handiwork.model.redacted import shown_as_repr

DisplayName = Annotated[str, Meta(min_length=1, max_length=255)]
SERVED = "environment_variable"
NOTHING = msgspec.Raw(b"null")

T = TypeVar("T")


class VaultCreate(Body, frozen=True):
    """POST /v1/vaults."""

    display_name: DisplayName
    metadata: Metadata = msgspec.field(default_factory=dict)


class VaultUpdate(Body, frozen=True):
    """POST /v1/vaults/{id}."""

    display_name: DisplayName | None = None
    metadata: MetadataPatch | None = None


class Limited(Body, frozen=True):
    """The hosts that a value may be sent to."""

    type: Literal["limited"]
    allowed_hosts: Annotated[list[str], Meta(min_length=1, max_length=16)]


class Injection(Body, frozen=True):
    """Where in a request the placeholder is replaced."""

    header: bool | None = None
    body: bool | None = None


class VariableCreate(Body, frozen=True):
    """A secret that stands in the sandbox as an environment variable holding a placeholder."""

    type: Literal["environment_variable"]
    secret_name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    secret_value: str
    networking: Limited
    injection_location: Injection | None = None

    def __repr__(self) -> str:
        return f"VariableCreate({self.secret_name})"

    __rich_repr__ = shown_as_repr


class VariableUpdate(Body, frozen=True):
    """What may change of such a secret; its name may not."""

    type: Literal["environment_variable"]
    secret_value: str | None = None
    networking: Limited | None = None
    injection_location: Injection | None = None

    def __repr__(self) -> str:
        return "VariableUpdate(…)"

    __rich_repr__ = shown_as_repr


class CredentialCreate(Body, frozen=True):
    """POST …/credentials."""

    auth: msgspec.Raw
    display_name: DisplayName | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return "CredentialCreate(…)"

    __rich_repr__ = shown_as_repr


class CredentialUpdate(Body, frozen=True):
    """POST …/credentials/{id}."""

    auth: msgspec.Raw = NOTHING
    display_name: DisplayName | None = None
    metadata: MetadataPatch | None = None

    def __repr__(self) -> str:
        return "CredentialUpdate(…)"

    __rich_repr__ = shown_as_repr


def auth_of(auth: msgspec.Raw, shape: type[T]) -> T:
    """Return the checked `auth`; 400, never with a value in it, for a type that is not served."""
    kind = decode(bytes(auth), dict[str, Any]).get("type")
    if kind != SERVED:
        shown = kind if kind in ("mcp_oauth", "static_bearer") else "another type"
        raise invalid(f"auth: this server serves credentials of type {SERVED} only, not {shown}")
    return decode(bytes(auth), shape)


def locations(before: dict[str, bool], given: Injection | None) -> dict[str, bool]:
    """Return where a placeholder is replaced; 400 for bodies, which this server's proxy leaves alone."""
    after = dict(before)
    if given is not None:
        after |= {
            key: value for key, value in msgspec.structs.asdict(given).items() if value is not None
        }
    if after["body"]:
        raise invalid("injection_location: this server replaces placeholders in headers only")
    if not after["header"]:
        raise invalid("injection_location: at least one location must be enabled")
    return after
