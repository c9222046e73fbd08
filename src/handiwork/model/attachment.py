"""What a session brings along: skills of its agent, memory stores mounted in its sandbox."""

import msgspec


class SkillRef(msgspec.Struct, frozen=True, kw_only=True):
    """A skill that the agent declares; `version` may be `latest`."""

    skill_id: str
    version: str = "latest"


class SkillVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a skill, as the brain resolved it."""

    skill_id: str
    id: str
    name: str


class MemoryStoreRef(msgspec.Struct, frozen=True, kw_only=True):
    """A memory store that the session mounts; `mount_path` is where the agent is told to look."""

    store_id: str
    name: str = ""
    mount_path: str = ""
    read_only: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """One memory of a store. `path` begins with a slash; `content` absent: it was not asked for."""

    id: str
    path: str
    sha256: str
    content: str | None = None
