"""The bodies of requests, checked strictly, and the agent as it is kept and shown."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.models import ToolResult
from handiwork.brains.local.tool_schemas import check_schema
from handiwork.brains.local.turn import TOOLSET, Event

T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
MetadataPatch = dict[
    Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)] | None
]
System = Annotated[str, Meta(max_length=100_000)]

BUILT_IN = frozenset({"bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search"})


class Body(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A part of a request; an unknown field is refused."""


NO_MCP = "this brain serves no MCP servers: give the agent custom tools"


class AgentPart(Body, frozen=True):
    """What is told of an agent; what this brain does not serve is refused in words."""

    def __post_init__(self) -> None:
        """ValueError becomes the 400 of whoever decodes, with the place in the body."""
        if getattr(self, "mcp_servers", None):
            raise ValueError(f"mcp_servers: {NO_MCP}")
        if getattr(self, "multiagent", None):
            raise ValueError("multiagent: a session of this brain has one thread: leave it out")


class Policy(Body, frozen=True):
    """When a tool of the toolset may run."""

    type: Literal["always_allow", "always_ask", "auto"]


class ToolDefaults(Body, frozen=True):
    """What holds for the tools that have no configuration of their own."""

    enabled: bool | None = None
    permission_policy: Policy | None = None


class ToolConfig(Body, frozen=True):
    """What holds for one tool of the toolset."""

    name: str
    enabled: bool | None = None
    permission_policy: Policy | None = None


class Toolset(Body, frozen=True, tag=TOOLSET, tag_field="type"):
    """The stock toolset."""

    default_config: ToolDefaults | None = None
    configs: list[ToolConfig] = []


class CustomTool(Body, frozen=True, tag="custom", tag_field="type"):
    """A tool of the client's own."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    description: Annotated[str, Meta(min_length=1)]
    input_schema: dict[str, Any]


class McpToolset(msgspec.Struct, frozen=True, tag="mcp_toolset", tag_field="type"):
    """The tools of an MCP server: always refused."""

    def __post_init__(self) -> None:
        """ValueError becomes the 400 of whoever decodes."""
        raise ValueError(NO_MCP)


class Skill(Body, frozen=True):
    """A skill by reference."""

    type: Literal["custom", "anthropic"]
    skill_id: str
    version: str | None = None


class ModelConfig(Body, frozen=True):
    """A model with its options."""

    id: str
    speed: Literal["standard", "fast"] | None = None
    effort: Any = None
    inference_geo: str | None = None


Tools = Annotated[list[Toolset | CustomTool | McpToolset], Meta(max_length=128)]


class AgentCreate(AgentPart, frozen=True):
    """POST /v1/agents."""

    name: Name
    model: str | ModelConfig
    description: str | None = None
    system: System | None = None
    tools: Tools = []
    skills: list[Skill] = []
    mcp_servers: list[Any] = []
    metadata: Metadata = {}
    multiagent: Any = None
    execution_identity: dict[str, Any] | None = None


class AgentUpdate(AgentPart, frozen=True):
    """POST /v1/agents/{id}: lists are replaced, metadata is merged, null clears."""

    version: int | None = None
    name: Name | msgspec.UnsetType = msgspec.UNSET
    model: str | ModelConfig | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    system: System | msgspec.UnsetType | None = msgspec.UNSET
    tools: Tools | msgspec.UnsetType | None = msgspec.UNSET
    skills: list[Skill] | msgspec.UnsetType | None = msgspec.UNSET
    mcp_servers: list[Any] | None = None
    metadata: MetadataPatch | None = None
    multiagent: Any = None
    execution_identity: dict[str, Any] | None = None


class SelfHosted(Body, frozen=True):
    """The one kind of environment that this server has."""

    type: Literal["self_hosted"]


class EnvironmentCreate(Body, frozen=True):
    """POST /v1/environments."""

    name: Name
    config: SelfHosted | None = None
    description: str | None = None
    metadata: Metadata = {}
    scope: Literal["organization", "account"] | None = None


class EnvironmentUpdate(Body, frozen=True):
    """POST /v1/environments/{id}."""

    name: Name | None = None
    config: SelfHosted | None = None
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: MetadataPatch = {}
    scope: Literal["organization", "account"] | None = None


class AgentReference(Body, frozen=True, tag="agent", tag_field="type"):
    """An agent, or one version of it."""

    id: str
    version: int | None = None


class AgentWithOverrides(AgentPart, frozen=True, tag="agent_with_overrides", tag_field="type"):
    """An agent with parts replaced for one session."""

    id: str
    version: int | None = None
    model: str | ModelConfig | None = None
    system: System | msgspec.UnsetType | None = msgspec.UNSET
    tools: Tools | None = None
    skills: list[Skill] | None = None
    mcp_servers: list[Any] | None = None


class Block(msgspec.Struct, kw_only=True, frozen=True):
    """Content; fields that this server does not read are dropped."""


class TextBlock(Block, frozen=True, tag="text", tag_field="type"):
    """Text."""

    text: str


class ImageBlock(Block, frozen=True, tag="image", tag_field="type"):
    """An image."""

    source: dict[str, Any]


class DocumentBlock(Block, frozen=True, tag="document", tag_field="type"):
    """A document."""

    source: dict[str, Any]
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Block, frozen=True, tag="search_result", tag_field="type"):
    """A search result."""

    source: str
    title: str
    content: list[dict[str, Any]]
    citations: dict[str, Any] | None = None


MessageContent = Annotated[
    list[TextBlock | ImageBlock | DocumentBlock], Meta(min_length=1, max_length=1000)
]
ResultContent = Annotated[
    list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock], Meta(max_length=1000)
]


class UserMessage(Body, frozen=True, tag="user.message", tag_field="type"):
    """Something the user says."""

    content: MessageContent


class UserInterrupt(Body, frozen=True, tag="user.interrupt", tag_field="type"):
    """Stop the turn."""

    session_thread_id: str | None = None


class UserToolConfirmation(Body, frozen=True, tag="user.tool_confirmation", tag_field="type"):
    """A verdict on a held call."""

    tool_use_id: str
    result: Literal["allow", "deny"]
    deny_message: str | None = None
    session_thread_id: str | None = None


class UserToolResult(Body, frozen=True, tag="user.tool_result", tag_field="type"):
    """The result of a call of the toolset."""

    tool_use_id: str
    content: ResultContent = []
    is_error: bool | None = None
    session_thread_id: str | None = None


class UserCustomToolResult(Body, frozen=True, tag="user.custom_tool_result", tag_field="type"):
    """The result of a custom tool's call."""

    custom_tool_use_id: str
    content: ResultContent = []
    is_error: bool | None = None
    session_thread_id: str | None = None


UserEvent = (
    UserMessage | UserInterrupt | UserToolConfirmation | UserToolResult | UserCustomToolResult
)


class UserDefineOutcome(Block, frozen=True, tag="user.define_outcome", tag_field="type"):
    """A result to work towards, which this server does not evaluate."""


class SystemMessage(Block, frozen=True, tag="system.message", tag_field="type"):
    """Context of the operator's in the midst of a session, which this server does not take."""


Unserved = UserDefineOutcome | SystemMessage
_REASONS: dict[type[Any], str] = {
    UserDefineOutcome: "user.define_outcome: this server does not evaluate outcomes; say what is"
    " wanted in a user.message",
    SystemMessage: "system.message: this server takes no system context after a session's start;"
    " set the agent's `system`",
}


class EventsSend(Body, frozen=True):
    """POST /v1/sessions/{id}/events."""

    events: Annotated[list[UserEvent | Unserved], Meta(min_length=1, max_length=50)]


class Money(Body, frozen=True):
    """An amount in whole cents."""

    amount: Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,14})$")]
    currency: Literal["USD"]


class Budget(Body, frozen=True):
    """The most that a session may cost."""

    type: Literal["limit"]
    max_list_cost: Money


class SessionCreate(Body, frozen=True):
    """POST /v1/sessions."""

    agent: str | AgentReference | AgentWithOverrides
    environment_id: str
    title: str | None = None
    metadata: Metadata = {}
    resources: Annotated[list[msgspec.Raw], Meta(max_length=100)] = []
    vault_ids: Annotated[list[str], Meta(max_length=20)] = []
    initial_events: Annotated[list[UserMessage | UserDefineOutcome], Meta(max_length=50)] = []
    budget: Budget | None = None


class SessionAgentPatch(AgentPart, frozen=True):
    """What may change of a session's agent."""

    tools: Tools | None = None
    mcp_servers: list[Any] | None = None


class SessionUpdate(Body, frozen=True):
    """POST /v1/sessions/{id}."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: MetadataPatch | None = None
    agent: SessionAgentPatch | None = None
    vault_ids: Annotated[list[str], Meta(max_length=0)] | None = None
    budget: Budget | msgspec.UnsetType | None = msgspec.UNSET


class Nothing(Body, frozen=True):
    """A body without fields."""


class WebhookCreate(Body, frozen=True):
    """POST /v1/webhook_endpoints; without types, all that are sent."""

    url: str
    event_types: Annotated[list[str], Meta(min_length=1, max_length=100)] | None = None


class WorkStop(Body, frozen=True):
    """POST …/work/{id}/stop."""

    force: bool = False


class WorkUpdate(Body, frozen=True):
    """POST …/work/{id}."""

    metadata: MetadataPatch


def decode(body: bytes, shape: type[T]) -> T:
    """Return the checked body, or a 400 that names the field."""
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (ValueError, RecursionError) as error:
        # ValueError: msgspec's own errors, and UnicodeDecodeError for what is no UTF-8.
        raise invalid(str(error)) from None


def served(events: Sequence[UserEvent | Unserved], thread_id: str | None) -> list[UserEvent]:
    """Return a user's events; 400 for one that this server does not take, or of another thread."""
    for event in events:
        if isinstance(event, UserDefineOutcome | SystemMessage):
            raise invalid(_REASONS[type(event)])
        named = getattr(event, "session_thread_id", None)
        if named not in (None, thread_id):
            raise invalid(f"session_thread_id: {named} is no thread of this session")
    return [event for event in events if not isinstance(event, UserDefineOutcome | SystemMessage)]


def merged(metadata: dict[str, str], patch: MetadataPatch | None) -> dict[str, str]:
    """Return the metadata with a patch applied; null deletes a key. 400 when it grows too long."""
    after = {**metadata, **(patch or {})}
    kept = {key: value for key, value in after.items() if value is not None}
    if len(kept) > 16:
        raise invalid("metadata: at most 16 pairs")
    return kept


def tools_as_kept(tools: Tools | None) -> list[dict[str, Any]]:
    """Return the tools with every default written out. 400 for names that collide, bad schemas."""
    names = [tool.name for tool in tools or () if isinstance(tool, CustomTool)]
    for name in names:
        if name in BUILT_IN or name.startswith(("mcp__", "ant__")) or names.count(name) > 1:
            raise invalid(f"tools: the name {name!r} is reserved or used twice")
    for tool in tools or ():
        if isinstance(tool, CustomTool):
            check_schema(tool.name, tool.input_schema)
    return [
        _toolset_as_kept(tool) if isinstance(tool, Toolset) else msgspec.to_builtins(tool)
        for tool in tools or ()
    ]


def model_as_kept(model: str | ModelConfig) -> dict[str, Any]:
    """Return the model as an object."""
    config = ModelConfig(id=model) if isinstance(model, str) else model
    return {
        "id": config.id,
        "speed": config.speed or "standard",
        "effort": config.effort,
        "inference_geo": config.inference_geo,
    }


def text_of(content: list[Any]) -> str:
    """Return what a model that reads only text is shown."""
    return "\n".join(
        block.text if isinstance(block, TextBlock) else f"[{type(block).__struct_config__.tag}]"
        for block in content
    )


def result_of(event: UserToolResult | UserCustomToolResult) -> ToolResult:
    """Return a result event as the model is told it; the name is filled in by the turn."""
    return ToolResult("", text_of(event.content), bool(event.is_error))


def wire_event(event: Any, event_id: str) -> Event:
    """Return a user's event as it is kept and shown."""
    return {"id": event_id, **msgspec.to_builtins(event)}


def _toolset_as_kept(toolset: Toolset) -> dict[str, Any]:
    given = toolset.default_config or ToolDefaults()
    default = _permission(given.enabled, given.permission_policy, True, "always_allow")
    for config in toolset.configs:
        if config.name not in BUILT_IN:
            raise invalid(f"tools: {config.name!r} is not a tool of {TOOLSET}")
    return {
        "type": TOOLSET,
        "default_config": default,
        "configs": [
            {
                "name": config.name,
                **_permission(
                    config.enabled,
                    config.permission_policy,
                    default["enabled"],
                    default["permission_policy"]["type"],
                ),
            }
            for config in toolset.configs
        ],
    }


def _permission(
    enabled: bool | None, policy: Policy | None, else_enabled: bool, else_policy: str
) -> dict[str, Any]:
    return {
        "enabled": else_enabled if enabled is None else enabled,
        "permission_policy": {"type": policy.type if policy else else_policy},
    }
