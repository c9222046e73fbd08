"""A skill keeps its name, its versions and at least one of them."""

import pytest

from handiwork.brains.local import skills as rules
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.paging import page
from handiwork.brains.local.skill_files import Skill


def skill(number: int, name: str = "demo") -> Skill:
    return Skill(name, f"d{number}", b"zip%d" % number)


async def test_the_newest_version_is_latest_until_it_goes(services):
    made = await services.skills.create(skill(1), None)
    assert made["display_name"] == "demo"
    second = await services.skills.add_version(made["id"], skill(2))
    assert await services.skills.content(made["id"], "latest") == ("demo", b"zip2")
    assert (await services.skills.get(made["id"]))["latest_version_id"] == second["id"]
    await services.skills.delete_version(made["id"], second["id"])
    assert (await services.skills.version(made["id"], "latest"))["description"] == "d1"
    assert await services.skills.get(made["id"]) == {
        **made,
        "updated_at": (await services.skills.get(made["id"]))["updated_at"],
    }
    with pytest.raises(WireError, match="the last version"):
        await services.skills.delete_version(made["id"], "latest")


async def test_a_version_of_another_name_or_too_many_are_refused(services, monkeypatch):
    made = await services.skills.create(skill(1), "Label")
    with pytest.raises(WireError, match="'demo', not 'other'"):
        await services.skills.add_version(made["id"], skill(2, "other"))
    monkeypatch.setattr(rules, "MAX_VERSIONS", 1)
    with pytest.raises(WireError, match="1 versions"):
        await services.skills.add_version(made["id"], skill(2))


async def test_a_deleted_skill_is_gone_with_its_versions(services):
    made = await services.skills.create(skill(1), None)
    await services.skills.delete(made["id"])
    for read in (
        services.skills.get(made["id"]),
        services.skills.content(made["id"], "latest"),
        services.skills.content(made["id"], made["latest_version_id"]),
        services.skills.version("skill_none", "latest"),
    ):
        with pytest.raises(WireError) as missing:
            await read
        assert missing.value.status == 404


async def test_lists_know_their_source(services):
    made = await services.skills.create(skill(1), None)
    wanted = page([], limit=20, most=100, order="desc")
    for source, found in [("custom", [made["id"]]), ("anthropic", [])]:
        listed = await services.skills.list([("source", source)], wanted)
        assert [each["id"] for each in listed["data"]] == found
    versions = await services.skills.versions(made["id"], [], wanted)
    assert [each["id"] for each in versions["data"]] == [made["latest_version_id"]]
