"""Who may upload and read skills, and what an upload may not be."""

import pytest

from skill_uploads import MANIFEST

FILES = [("files[]", ("demo-skill/SKILL.md", MANIFEST.encode()))]


@pytest.fixture
async def skill(http):
    made = await http("POST", "/v1/skills", files=FILES, headers={"anthropic-beta": ""})
    assert made.status_code == 200
    return made.json()


async def test_hands_read_and_do_not_write(http, environment_key, skill):
    path = f"/v1/skills/{skill['id']}"
    for readable in (path, f"{path}/versions/latest", f"{path}/versions/latest/content"):
        read = await http("GET", readable, key=environment_key, headers={"anthropic-beta": ""})
        assert read.status_code == 200
    for method, where in [
        ("GET", "/v1/skills"),
        ("GET", f"{path}/versions"),
        ("DELETE", path),
        ("DELETE", f"{path}/versions/latest"),
        ("POST", f"{path}/versions"),
        ("POST", "/v1/skills"),
    ]:
        assert (await http(method, where, key=environment_key)).status_code == 403


async def test_content_is_a_zip_download(http, skill):
    read = await http("GET", f"/v1/skills/{skill['id']}/versions/latest/content")
    assert read.headers["content-type"] == "application/zip"
    assert 'filename="demo-skill.zip"' in read.headers["content-disposition"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"body": {"files": []}}, "multipart"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            "begin",
        ),
        ({"files": [("other", ("a/SKILL.md", b"x"))]}, "empty"),
        ({"files": FILES, "data": {"display_name": "n" * 256}}, "display_name"),
        ({"files": FILES, "data": {"display_name": "a\nb"}}, "display_name"),
        ({"files": [*FILES, ("display_name", (None, b"\xff"))]}, "display_name"),
    ],
)
async def test_a_wrong_upload_is_a_400_that_says_why(http, more, reason):
    refused = await http("POST", "/v1/skills", **more)
    assert refused.status_code == 400
    assert reason in refused.json()["error"]["message"]


async def test_a_version_of_no_skill_is_a_404(http):
    assert (await http("POST", "/v1/skills/skill_none/versions", files=FILES)).status_code == 404
