"""References, and what a registry that answers wrongly is told; the rest is in the pull's own tests."""

import asyncio
import json

import httpx2
import pytest

from handiwork.model.errors import ConfigError, UnauthorizedError, UnsupportedError
from handiwork.sandboxes.images.registry import Reference, Registry, parse_reference
from image_archives import sha256

DIGEST = "sha256:" + "a" * 64


def test_references():
    assert parse_reference("r.example.org/a/b-c:1.2_x") == Reference(
        "r.example.org", "a/b-c", "1.2_x"
    )
    assert parse_reference(f"r.example:5000/a@{DIGEST}").version == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        *("", "debian", "debian:12", "library/debian:12", "r.example.org/a", "R.example.org/a:1"),
        *(
            "r.example.org/../a:1",
            "r.example.org/a//b:1",
            "r.example.org/a:1@x",
            "r.example.org/a:",
        ),
        *("https://r.example.org/a:1", "u@r.example.org/a:1", "r.example.org/a:1?x=y"),
        *("r.example.org/a@sha256:1", "r.example.org/" + "a" * 600 + ":1"),
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(ConfigError, match="HOST/PATH:TAG"):
        parse_reference(text)


async def parts_of(answers, reference="r.example.org/a:1", credentials=None):
    """Ask a registry that gives these answers by address; the files of the layout."""
    asked = []

    def respond(request):
        url = request.extensions["target"].decode()
        asked.append((url, request.headers.get("authorization")))
        found = answers.get(url, httpx2.Response(404))
        return httpx2.Response(
            found.status_code, headers=found.headers, stream=httpx2.ByteStream(found.content)
        )

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as http:
        registry = Registry(http, parse_reference(reference), credentials)
        async with asyncio.timeout(20):
            names = []
            async for name, pieces in registry.parts(lambda *_: None):
                names.append(name)
                async for _ in pieces:
                    pass
    return names, asked


V2 = "https://r.example.org/v2/a"


@pytest.mark.parametrize(
    ("answers", "error", "said"),
    [
        ({}, ConfigError, "404"),
        ({f"{V2}/manifests/1": httpx2.Response(200, content=b"{")}, ConfigError, "not what"),
        ({f"{V2}/manifests/1": httpx2.Response(403)}, UnauthorizedError, "403"),
        ({f"{V2}/manifests/1": httpx2.Response(401)}, UnauthorizedError, "image login"),
        (
            {
                f"{V2}/manifests/1": httpx2.Response(
                    401, headers={"www-authenticate": 'Bearer realm="http://plain.example/"'}
                )
            },
            UnauthorizedError,
            "image login",
        ),
        (
            {f"{V2}/manifests/1": httpx2.Response(307, headers={"location": "http://x.example/"})},
            ConfigError,
            "no https",
        ),
        (
            {f"{V2}/manifests/1": httpx2.Response(307, headers={"location": "file:///etc/passwd"})},
            ConfigError,
            "no https",
        ),
        (
            {f"{V2}/manifests/1": httpx2.Response(307, headers={"location": f"{V2}/manifests/1"})},
            ConfigError,
            "307",
        ),
        (
            {f"{V2}/manifests/1": httpx2.Response(502, headers={"x-handiwork-error": "private"})},
            UnsupportedError,
            "private",
        ),
        (
            {f"{V2}/manifests/1": httpx2.Response(200, content=b" " * (9 << 20))},
            ConfigError,
            "too long",
        ),
    ],
)
async def test_wrong_answers(answers, error, said):
    with pytest.raises(error, match=said):
        await parts_of(answers)


async def test_it_is_led_elsewhere_without_a_key():
    config = b"{}"
    manifest = json.dumps({"config": {"digest": sha256(config), "size": 2}, "layers": []}).encode()
    elsewhere = "https://cdn.example.org/blob"
    answers = {
        f"{V2}/manifests/{sha256(manifest)}": httpx2.Response(200, content=manifest),
        f"{V2}/blobs/{sha256(config)}": httpx2.Response(307, headers={"location": elsewhere}),
        elsewhere: httpx2.Response(200, content=config),
    }
    names, asked = await parts_of(answers, f"r.example.org/a@{sha256(manifest)}")
    assert names[:2] == ["oci-layout", "index.json"]
    assert dict(asked)[elsewhere] is None


async def test_a_manifest_must_be_the_one_asked_for():
    answers = {f"{V2}/manifests/{DIGEST}": httpx2.Response(200, content=b"{}")}
    with pytest.raises(ConfigError, match="was asked for"):
        await parts_of(answers, f"r.example.org/a@{DIGEST}")
