"""Routes of skills: uploaded with the API key, read by the hands of any session too."""

import asyncio

from litestar import Response, delete, get, post

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.keys import HANDS, Kind
from handiwork.brains.local.multipart import MultipartError, Part, boundary_of, parts_of
from handiwork.brains.local.paging import page
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    caller_of,
    name_of,
    query_of,
    services_of,
)
from handiwork.brains.local.skill_files import Skill, SkillRefusedError, packed

SKILL = "/v1/skills/{skill_id:str}"
VERSION = f"{SKILL}/versions/{{version:str}}"
MAX_DISPLAY_NAME = 255


async def _form(request: AnyRequest) -> tuple[Skill, str | None]:
    """Return the checked skill of an upload and its display name; 400 for anything else."""
    try:
        boundary = boundary_of(request.headers.get("content-type", ""))
        parts = parts_of(await request.body(), boundary)
        # Unpacking and packing 30 MiB takes a while, which other requests should not wait for.
        skill = await asyncio.to_thread(packed, _files(parts))
    except (MultipartError, SkillRefusedError) as refused:
        raise invalid(str(refused)) from None
    return skill, _display_name(parts)


def _files(parts: list[Part]) -> list[tuple[str, bytes]]:
    return [
        (part.filename or "", part.content) for part in parts if part.name in ("files", "files[]")
    ]


def _display_name(parts: list[Part]) -> str | None:
    given = next((part.content for part in parts if part.name == "display_name"), b"")
    try:
        name = given.decode().strip()
    except UnicodeDecodeError:
        raise invalid("display_name: is not UTF-8") from None
    if len(name) > MAX_DISPLAY_NAME or not name.isprintable():
        raise invalid(f"display_name: must be one line of at most {MAX_DISPLAY_NAME} characters")
    return name or None


@post("/v1/skills", status_code=200)
async def create_skill(request: AnyRequest) -> Answer:
    """Upload a new skill."""
    caller_of(request, Kind.API)
    skill, display_name = await _form(request)
    return answer(await services_of(request).skills.create(skill, display_name))


@get("/v1/skills")
async def list_skills(request: AnyRequest) -> Answer:
    """List skills, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=1000, order="desc")
    return answer(await services_of(request).skills.list(query, wanted))


@get(SKILL)
async def get_skill(request: AnyRequest) -> Answer:
    """Return a skill."""
    caller_of(request, *HANDS)
    return answer(await services_of(request).skills.get(name_of(request, "skill_id")))


@delete(SKILL, status_code=200)
async def delete_skill(request: AnyRequest) -> Answer:
    """Remove a skill with its versions."""
    caller_of(request, Kind.API)
    skill_id = name_of(request, "skill_id")
    await services_of(request).skills.delete(skill_id)
    return answer({"id": skill_id, "type": "skill_deleted"})


@post(f"{SKILL}/versions", status_code=200)
async def create_version(request: AnyRequest) -> Answer:
    """Upload a new version of a skill."""
    caller_of(request, Kind.API)
    skills, skill_id = services_of(request).skills, name_of(request, "skill_id")
    await skills.get(skill_id)
    skill, _ = await _form(request)
    return answer(await skills.add_version(skill_id, skill))


@get(f"{SKILL}/versions")
async def list_versions(request: AnyRequest) -> Answer:
    """List a skill's versions, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=1000, order="desc")
    skills = services_of(request).skills
    return answer(await skills.versions(name_of(request, "skill_id"), query, wanted))


@get(VERSION)
async def get_version(request: AnyRequest) -> Answer:
    """Return a version, or the newest."""
    caller_of(request, *HANDS)
    skill_id, version = name_of(request, "skill_id"), name_of(request, "version")
    return answer(await services_of(request).skills.version(skill_id, version))


@delete(VERSION, status_code=200)
async def delete_version(request: AnyRequest) -> Answer:
    """Remove a version that is not the last."""
    caller_of(request, Kind.API)
    skill_id, version = name_of(request, "skill_id"), name_of(request, "version")
    gone = await services_of(request).skills.delete_version(skill_id, version)
    return answer({"id": gone["id"], "type": "skill_version_deleted"})


@get(f"{VERSION}/content")
async def get_content(request: AnyRequest) -> Answer:
    """Return a version's files as a zip archive."""
    caller_of(request, *HANDS)
    skill_id, version = name_of(request, "skill_id"), name_of(request, "version")
    name, archive = await services_of(request).skills.content(skill_id, version)
    headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
    return Response(archive, media_type="application/zip", headers=headers, status_code=200)


ROUTES = [
    create_skill,
    list_skills,
    get_skill,
    delete_skill,
    create_version,
    list_versions,
    get_version,
    delete_version,
    get_content,
]
