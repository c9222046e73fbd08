"""Skills through the unmodified SDK, sync and async, against the real process."""

import io
import zipfile

import anthropic
import pytest

from brain_clients import KINDS, brain_client
from brain_process import BrainProcess
from skill_uploads import MANIFEST, with_manifest


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture(params=KINDS)
async def client(brain, request):
    async with brain_client(brain, request.param) as made:
        yield made


FILES = [("demo-skill/SKILL.md", MANIFEST.encode()), ("demo-skill/lib/a.py", b"print(1)\r\n")]


async def content(client, skill_id: str, version: str) -> dict[str, bytes]:
    answer = await client(lambda sdk: sdk.beta.skills.versions.download(version, skill_id=skill_id))
    raw = answer.read()
    data = raw if isinstance(raw, bytes) else await raw
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def test_a_skill_and_its_versions(brain, client):
    made = await client(lambda sdk: sdk.beta.skills.create(files=FILES, display_name="Demo"))
    assert (made.type, made.display_name, made.source.type) == ("skill", "Demo", "custom")
    newer = MANIFEST.replace("Shows how.", "Shows more.")
    second = await client(
        lambda sdk: sdk.beta.skills.versions.create(
            made.id, files=[("demo-skill/SKILL.md", newer.encode())]
        )
    )
    assert (second.name, second.description) == ("demo-skill", "Shows more.")
    assert (
        await client(lambda sdk: sdk.beta.skills.retrieve(made.id))
    ).latest_version_id == second.id
    listed = await client.all(lambda sdk: sdk.beta.skills.versions.list(made.id, limit=1))
    assert [each.id for each in listed] == [second.id, made.latest_version_id]
    assert await content(client, made.id, made.latest_version_id) == dict(FILES)
    async with brain_client(brain, "async", brain.environment_key) as hands:
        latest = await hands(
            lambda sdk: sdk.beta.skills.versions.retrieve("latest", skill_id=made.id)
        )
        assert latest.id == second.id
        assert list(await content(hands, made.id, "latest")) == ["demo-skill/SKILL.md"]
    gone = await client(lambda sdk: sdk.beta.skills.versions.delete(second.id, skill_id=made.id))
    assert gone.type == "skill_version_deleted"
    assert made.id in [s.id for s in await client.all(lambda sdk: sdk.beta.skills.list(limit=1))]
    assert (await client(lambda sdk: sdk.beta.skills.delete(made.id))).type == "skill_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await client(lambda sdk: sdk.beta.skills.retrieve(made.id))


async def test_a_zip_is_taken_and_a_hostile_one_refused(client):
    made = await client(lambda sdk: sdk.beta.skills.create(files=[("s.zip", with_manifest())]))
    assert made.display_name == "demo-skill"
    with pytest.raises(anthropic.BadRequestError, match=r"'\.\.'"):
        await client(
            lambda sdk: sdk.beta.skills.create(
                files=[("s.zip", with_manifest(("demo-skill/../x", "x")))]
            )
        )


async def test_skills_survive_a_crash(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with brain_client(brain, "async") as client:
            made = await client(lambda sdk: sdk.beta.skills.create(files=FILES))
            brain.kill()
            brain.restart()
            assert await content(client, made.id, "latest") == dict(FILES)
