"""The brain's JSON as our nouns, and back: pure, and lenient about what it does not know.

Whatever the bytes say, reading gives one of our events or None; a tool call whose verdict is not
known is held (Permission.UNKNOWN), never run.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec

from handiwork.model.attachment import Memory, MemoryStoreRef, SkillRef, SkillVersion
from handiwork.model.environment import QueueStats
from handiwork.model.placeholder import Credential
from handiwork.model.secret import SealedSecret
from handiwork.model.session import (
    BrainEvent,
    BrainSession,
    BrainSessionEnded,
    Interrupted,
    SessionChanged,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    TurnRunning,
    WorkItem,
)
from handiwork.model.tool import (
    Block,
    DocumentBlock,
    ImageBlock,
    Permission,
    TextBlock,
    ToolCall,
    ToolResult,
)

TOOLSET_PREFIX = "agent_toolset_"

MAX_CREDENTIALS = 1000
"""Of one listing; a session is given fewer."""

MAX_GROUNDS_CHARACTERS = 64
"""Of the code that says why a call was judged as it was."""

MAX_RETRY_SECONDS = 120.0
"""A brain that asks for more is asked again after this."""

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)

_VERDICTS = {
    None: Permission.ALLOW,
    "allow": Permission.ALLOW,
    "ask": Permission.ASK,
    "deny": Permission.DENY,
}

Json = Mapping[str, Any]


def read_json(data: bytes) -> dict[str, Any] | None:
    """Return the object of a body or an event; msgspec.MsgspecError for what is none.

    Text of a model is in it, cut in the middle of a character at times: halves of surrogate pairs
    read as U+FFFD, and numbers that are none (NaN, 1e999) as null, as in no strict reader of JSON.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, Any] | None)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(type(error).__name__) from None
    except msgspec.MsgspecError as error:
        try:
            tree = json.loads(data, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError):
            raise error from None
    text = json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return msgspec.json.decode(text.decode("utf-8", "replace"), type=dict[str, Any] | None)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def read_event(event: Json, session_id: str) -> BrainEvent | None:
    """Return what an event means to the hands; None when it means nothing to them."""
    read = _READERS.get(_text(event, "type"))
    return read(event, session_id) if read is not None else None


def event_key(event: Json) -> str:
    """Return what makes an event itself: queued and later processed, it counts as two."""
    return f"{_text(event, 'id')}/{event.get('processed_at') is not None}"


def read_session(session: Json) -> BrainSession:
    """Return the hands' view of a session object."""
    agent = _object(session, "agent")
    tools = objects(agent, "tools")
    kinds = [_text(tool, "type") for tool in tools]
    return BrainSession(
        id=_text(session, "id"),
        agent_id=_text(agent, "id"),
        agent_name=_text(agent, "name"),
        title=_text(session, "title"),
        terminated=session.get("status") == "terminated" or session.get("archived_at") is not None,
        metadata={str(k): str(v) for k, v in _object(session, "metadata").items()},
        vault_ids=tuple(str(one) for one in _list(session, "vault_ids")),
        toolset=any(kind.startswith(TOOLSET_PREFIX) for kind in kinds),
        custom_tools=tuple(
            _text(tool, "name") for tool, kind in zip(tools, kinds, strict=True) if kind == "custom"
        ),
        skills=tuple(
            SkillRef(skill_id=_text(one, "skill_id"), version=_text(one, "version") or "latest")
            for one in objects(agent, "skills")
        ),
        memory_stores=tuple(
            _memory_store(one)
            for one in objects(session, "resources")
            if _text(one, "type") == "memory_store"
        ),
    )


def says_not_found(body: object) -> bool:
    """Say whether an error's body is the API's own for what does not exist."""
    match body:
        case {"type": "error", "error": {"type": "not_found_error"}}:
            return True
    return False


def _memory_store(resource: Json) -> MemoryStoreRef:
    """Return the store; an access that is not known is read-only."""
    return MemoryStoreRef(
        store_id=_text(resource, "memory_store_id"),
        name=_text(resource, "name"),
        mount_path=_text(resource, "mount_path"),
        read_only=resource.get("access") not in (None, "read_write"),
    )


def read_skill(version: Json) -> SkillVersion | None:
    """Return a skill's version; None when it names none."""
    skill_id, id_ = _text(version, "skill_id"), _text(version, "id")
    if not skill_id or not id_:
        return None
    return SkillVersion(skill_id=skill_id, id=id_, name=_text(version, "name"))


def read_memory(memory: Json) -> Memory | None:
    """Return a memory; None for what is none (`memory_prefix`) or names none."""
    id_, path, sha256 = (_text(memory, key) for key in ("id", "path", "content_sha256"))
    if memory.get("type", "memory") != "memory" or not id_ or not path.startswith("/"):
        return None
    content = memory.get("content")
    return Memory(
        id=id_, path=path, sha256=sha256, content=content if isinstance(content, str) else None
    )


def read_credentials(tree: Json) -> tuple[Credential, ...]:
    """Return the credentials of a listing; what is none is left out."""
    found = []
    for one in objects(tree, "data")[:MAX_CREDENTIALS]:
        try:
            sealed = msgspec.convert(one.get("sealed"), SealedSecret)
        except msgspec.ValidationError:
            continue
        found.append(Credential(variable=_text(one, "variable"), sealed=sealed))
    return tuple(found)


def objects(tree: Json, key: str) -> list[Json]:
    """Return the objects of a list; what is none is left out."""
    return [one for one in _list(tree, key) if isinstance(one, Mapping)]


def read_work(item: Json, environment_id: str) -> WorkItem | None:
    """Return a work item; None when it names no session to serve and no check to answer."""
    data = _object(item, "data")
    kind: Literal["session", "healthcheck"] = (
        "session" if _text(data, "type") == "session" else "healthcheck"
    )
    id_, session_id = _text(item, "id"), _text(data, "id") if kind == "session" else ""
    if not id_ or (kind == "session" and not session_id):
        return None
    return WorkItem(
        id=id_,
        environment_id=environment_id,
        kind=kind,
        session_id=session_id,
        secret=_text(item, "secret") or None,
        created_at=_time(item, "created_at"),
    )


def read_stats(tree: Json) -> QueueStats:
    """Return what the brain counts; what it does not say is 0 or unknown."""
    workers = _count(tree, "workers_polling")
    return QueueStats(
        depth=_count(tree, "depth") or 0,
        pending=_count(tree, "pending") or 0,
        oldest_queued_at=_time(tree, "oldest_queued_at"),
        workers_polling=workers,
    )


def write_result(result: ToolResult) -> dict[str, Any]:
    """Return the event that posts a result."""
    kind, key = (
        ("user.custom_tool_result", "custom_tool_use_id")
        if result.custom
        else ("user.tool_result", "tool_use_id")
    )
    return {
        "type": kind,
        key: result.tool_use_id,
        "is_error": result.is_error,
        "content": [_block(block) for block in result.content],
    }


def retry_seconds(headers: Mapping[str, str]) -> float:
    """Return how long the brain asks to be left alone, within a limit; 0 where it does not say.

    A date is compared with the answer's own, so that clocks need not agree.
    """
    told = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in zip(told, (0.001, 1.0), strict=True):
        if text is not None and _NUMBER.fullmatch(text := text.strip(" \t")):
            return min(float(text) * unit, MAX_RETRY_SECONDS)
    at, date = (_http_date(text) for text in (told[1], headers.get("date")))
    if at is None or date is None:
        return 0.0
    return min(max(0.0, (at - date).total_seconds()), MAX_RETRY_SECONDS)


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and found.tzinfo is not None else None


def sessions_token(secret: str | None) -> str | None:
    """Return the token that a work item's secret (base64url of JSON) carries, if it does."""
    if not secret:
        return None
    try:
        data = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        token = msgspec.json.decode(data, type=dict[str, Any]).get("sessions_token")
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    return token if isinstance(token, str) and token else None


def _called(event: Json, session_id: str, *, custom: bool = False) -> BrainEvent | None:
    id_, name, given = _text(event, "id"), _text(event, "name"), event.get("input")
    if not id_ or not name:
        return None
    permission, grounds = _judged(event)
    call = ToolCall(
        id=id_,
        session_id=session_id,
        name=name,
        input=given if isinstance(given, Mapping) else {},
        custom=custom,
        permission=permission,
        evaluation=grounds,
        thread_id=_text(event, "session_thread_id"),
        processed_at=_time(event),
    )
    return ToolCalled(call=call)


def _judged(event: Json) -> tuple[Permission, str]:
    """Return the verdict and its grounds; an `auto` judgement of the call can only make it stricter."""
    verdict = _verdict(event.get("evaluated_permission"))
    judgement = _object(_object(event, "evaluation"), "evaluated_permission")
    if verdict is Permission.ALLOW and judgement:
        verdict = _verdict(judgement.get("type") or "")
    grounds = _text(judgement, "reason_code") or _text(_object(event, "evaluation"), "type")
    return verdict, grounds[:MAX_GROUNDS_CHARACTERS]


def _verdict(value: Any) -> Permission:
    known = value is None or isinstance(value, str)
    return _VERDICTS.get(value, Permission.UNKNOWN) if known else Permission.UNKNOWN


def _custom_called(event: Json, session_id: str) -> BrainEvent | None:
    return _called(event, session_id, custom=True)


def _answered(event: Json, session_id: str) -> BrainEvent | None:
    del session_id
    id_ = _text(event, "tool_use_id") or _text(event, "custom_tool_use_id")
    return ToolSettled(tool_use_id=id_) if id_ else None


def _confirmed(event: Json, session_id: str) -> BrainEvent | None:
    del session_id
    id_ = _text(event, "tool_use_id")
    if not id_:
        return None
    allowed = event.get("result") == "allow"
    return ToolConfirmed(tool_use_id=id_, allowed=allowed, message=_text(event, "deny_message"))


def _interrupted(event: Json, session_id: str) -> BrainEvent | None:
    """An interrupt counts once it is processed."""
    del session_id
    at = _time(event)
    if at is None:
        return None
    return Interrupted(processed_at=at, thread_id=_text(event, "session_thread_id"))


def _thread_ended(event: Json, session_id: str) -> BrainEvent | None:
    """A terminated thread takes no results; one that is not named ends no other's calls."""
    return _interrupted(event, session_id) if _text(event, "session_thread_id") else None


def _idle(event: Json, session_id: str) -> BrainEvent | None:
    del session_id
    return TurnIdle(stop_reason=_text(_object(event, "stop_reason"), "type"))


def _running(event: Json, session_id: str) -> BrainEvent | None:
    del event, session_id
    return TurnRunning()


def _changed(event: Json, session_id: str) -> BrainEvent | None:
    """A title or a budget is nothing to the hands; `resources` is told by our own brain alone."""
    del session_id
    return SessionChanged(id=_text(event, "id")) if event.keys() & {"agent", "resources"} else None


def _ended(event: Json, session_id: str) -> BrainEvent | None:
    del session_id
    return BrainSessionEnded(reason=_text(event, "type").removeprefix("session."))


_READERS = {
    "agent.tool_use": _called,
    "agent.custom_tool_use": _custom_called,
    "agent.tool_result": _answered,
    "user.tool_result": _answered,
    "user.custom_tool_result": _answered,
    "user.tool_confirmation": _confirmed,
    "user.interrupt": _interrupted,
    "session.thread_status_terminated": _thread_ended,
    "session.status_idle": _idle,
    "session.status_running": _running,
    "session.updated": _changed,
    "session.status_terminated": _ended,
    "session.deleted": _ended,
}


def _block(block: Block) -> dict[str, Any]:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            return {"type": "image", "source": _base64(block.media_type, block.data)}
        case DocumentBlock():
            document = {"type": "document", "source": _base64(block.media_type, block.data)}
            return document | ({"title": block.title} if block.title else {})


def _base64(media_type: str, data: str) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": data}


def _text(tree: Json, key: str) -> str:
    value = tree.get(key)
    return value if isinstance(value, str) else ""


def _list(tree: Json, key: str) -> list[Any]:
    value = tree.get(key)
    return value if isinstance(value, list) else []


def _object(tree: Json, key: str) -> Json:
    value = tree.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(tree: Json, key: str) -> int | None:
    value = tree.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(tree: Json, key: str = "processed_at") -> datetime | None:
    try:
        found = msgspec.convert(tree.get(key), datetime)
    except msgspec.ValidationError:
        return None
    return found if found.tzinfo is not None else None
