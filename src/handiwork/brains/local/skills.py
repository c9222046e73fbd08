"""Skills and their versions, as they are kept."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from sqlalchemy import Connection, delete, false, func, select

from handiwork.brains.local import documents
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.paging import Page, Query, first
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.skill_files import Skill
from handiwork.brains.local.tables import SKILL_VERSIONS, SKILLS
from handiwork.store.database import Database

MAX_VERSIONS = 100
MAX_REFERENCES = 500
"""Skills of one agent that are looked up."""
LATEST = "latest"


class Skills:
    """All skills; an upload makes a version."""

    def __init__(self, database: Database, clock: Clock, new_id: NewId) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    async def create(self, uploaded: Skill, display_name: str | None) -> Document:
        """Keep a new skill with its first version."""
        now = timestamp(self._clock())
        version = self._version(self._new_id("skill"), uploaded, now)
        skill = {
            "id": version["skill_id"],
            "type": "skill",
            "name": uploaded.name,
            "display_name": display_name or uploaded.name,
            "latest_version_id": version["id"],
            "source": {"type": "custom"},
            "created_at": now,
            "updated_at": now,
        }

        def change(connection: Connection) -> None:
            documents.add(connection, SKILLS, skill)
            _add_version(connection, version, uploaded)

        await self._database.write(change)
        return _shown(skill)

    async def add_version(self, skill_id: str, uploaded: Skill) -> Document:
        """Keep a new version; 400 for one of another name."""
        now = timestamp(self._clock())
        version = self._version(skill_id, uploaded, now)

        def change(connection: Connection) -> None:
            skill = _skill(connection, skill_id)
            if uploaded.name != skill["name"]:
                raise invalid(f"files: this skill is {skill['name']!r}, not {uploaded.name!r}")
            if _count(connection, skill_id) >= MAX_VERSIONS:
                raise invalid(f"skill {skill_id} has {MAX_VERSIONS} versions: delete one first")
            skill |= {"latest_version_id": version["id"], "updated_at": now}
            documents.put(connection, SKILLS, skill)
            _add_version(connection, version, uploaded)

        await self._database.write(change)
        return version

    async def get(self, skill_id: str) -> Document:
        """Return a skill; 404."""
        return _shown(await self._database.read(lambda each: _skill(each, skill_id)))

    async def list(self, query: Query, page: Page) -> Document:
        """List skills, newest first; `source` other than `custom` finds none."""
        conditions = [] if first(query, "source") in (None, "", "custom") else [false()]
        listed = await documents.listed(self._database, SKILLS, query, page, conditions)
        return {**listed, "data": [_shown(skill) for skill in listed["data"]]}

    async def delete(self, skill_id: str) -> None:
        """Remove a skill with its versions."""

        def change(connection: Connection) -> None:
            _skill(connection, skill_id)
            connection.execute(delete(SKILL_VERSIONS).where(SKILL_VERSIONS.c.skill_id == skill_id))
            connection.execute(delete(SKILLS).where(SKILLS.c.id == skill_id))

        await self._database.write(change)

    async def version(self, skill_id: str, version_id: str) -> Document:
        """Return a version, the newest for `latest`; 404."""

        def read(connection: Connection) -> Document:
            row = connection.execute(_found(connection, skill_id, version_id)).first()
            return documents.decoded(row, "skill version", version_id)

        return await self._database.read(read)

    async def content(self, skill_id: str, version_id: str) -> tuple[str, bytes]:
        """Return a version's name and its files as a zip archive; 404."""

        def read(connection: Connection) -> tuple[str, bytes]:
            row = connection.execute(_found(connection, skill_id, version_id)).first()
            if row is None:
                raise missing("skill version", version_id)
            return documents.decoded(row, "skill version", version_id)["name"], row.archive

        return await self._database.read(read)

    async def versions(self, skill_id: str, query: Query, page: Page) -> Document:
        """List a skill's versions, newest first."""
        await self.get(skill_id)
        of_skill = [SKILL_VERSIONS.c.skill_id == skill_id]
        return await documents.listed(self._database, SKILL_VERSIONS, query, page, of_skill)

    async def delete_version(self, skill_id: str, version_id: str) -> Document:
        """Remove a version; 400 for the last one, without which there is no skill."""

        def change(connection: Connection) -> Document:
            row = connection.execute(_found(connection, skill_id, version_id)).first()
            version = documents.decoded(row, "skill version", version_id)
            if _count(connection, skill_id) == 1:
                raise invalid(f"{version['id']} is the last version: delete skill {skill_id}")
            of_version = SKILL_VERSIONS.c.id == version["id"]
            connection.execute(delete(SKILL_VERSIONS).where(of_version))
            skill = _skill(connection, skill_id)
            newest = connection.execute(_newest(skill_id)).scalar_one()
            documents.put(connection, SKILLS, {**skill, "latest_version_id": newest})
            return version

        return await self._database.write(change)

    def _version(self, skill_id: str, uploaded: Skill, now: str) -> Document:
        return {
            "id": self._new_id("skillver"),
            "type": "skill_version",
            "skill_id": skill_id,
            "name": uploaded.name,
            "description": uploaded.description,
            "created_at": now,
        }


def versions_of(connection: Connection, references: Iterable[Document]) -> list[Document]:
    """Return the versions that an agent's skills stand for; one that is gone is left out."""
    found = []
    for each in islice(references, MAX_REFERENCES):
        version_id = each["version"]
        if version_id == LATEST:
            version_id = connection.execute(_newest(each["skill_id"])).scalar()
        row = connection.execute(
            select(SKILL_VERSIONS.c.body).where(
                SKILL_VERSIONS.c.id == version_id, SKILL_VERSIONS.c.skill_id == each["skill_id"]
            )
        ).first()
        found += [documents.decoded(row, "skill version", version_id)] if row else []
    return found


def _shown(skill: Document) -> Document:
    return {key: value for key, value in skill.items() if key != "name"}


def _skill(connection: Connection, skill_id: str) -> Document:
    return documents.read(connection, SKILLS, "skill", skill_id)


def _add_version(connection: Connection, version: Document, uploaded: Skill) -> None:
    more = {"skill_id": version["skill_id"], "archive": uploaded.archive}
    documents.add(connection, SKILL_VERSIONS, version, **more)


def _newest(skill_id: str) -> Any:
    return (
        select(SKILL_VERSIONS.c.id)
        .where(SKILL_VERSIONS.c.skill_id == skill_id)
        .order_by(SKILL_VERSIONS.c.created_at.desc())
        .limit(1)
    )


def _found(connection: Connection, skill_id: str, version_id: str) -> Any:
    if version_id == LATEST:
        newest = connection.execute(_newest(skill_id)).scalar()
        if newest is None:
            raise missing("skill", skill_id)
        version_id = newest
    return select(SKILL_VERSIONS.c.body, SKILL_VERSIONS.c.archive).where(
        SKILL_VERSIONS.c.id == version_id, SKILL_VERSIONS.c.skill_id == skill_id
    )


def _count(connection: Connection, skill_id: str) -> int:
    query = (
        select(func.count())
        .select_from(SKILL_VERSIONS)
        .where(SKILL_VERSIONS.c.skill_id == skill_id)
    )
    return connection.execute(query).scalar_one()
