"""An image from a registry, through the real proxy: what is asked, what is sent, what is refused."""

import asyncio
import base64
import json
from datetime import UTC, datetime

import pytest

from egress_world import HOST, TestUpstream, grant, read_body, world
from handiwork.model.errors import ConfigError, UnauthorizedError, UnsupportedError
from handiwork.sandboxes.images.registry import parse_reference
from handiwork.sandboxes.images.store import Images
from handiwork.sessions.pulls import GRANT, from_registry, put_credentials
from handiwork.testing.store import MemoryStore
from image_archives import Oci, entry, sha256, tar

AUTH, CDN = "auth.example.org", "cdn.example.org"
PASSWORD = "pass-0123456789"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Shelf:
    """A registry that asks for a key, keeps blobs elsewhere, and can be made to lie."""

    def __init__(self, image, *, private=True):
        self.image = image
        self.private = private
        body = json.dumps(image.manifest).encode()
        self.manifest = sha256(body)
        image.blobs[self.manifest] = body
        here = {"os": "linux", "architecture": "amd64"}
        there = {"os": "linux", "architecture": "s390x"}
        told = image.told(self.manifest, mediaType=MANIFEST, platform=here)
        other = {"digest": sha256(b"x"), "size": 1, "mediaType": MANIFEST, "platform": there}
        self.index = json.dumps({"manifests": [other, told]}).encode()

    async def respond(self, seen, reader, writer):
        await read_body(seen, reader)
        host = seen.values("host")[0]
        status, headers, body = self.answer(seen, host)
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    def answer(self, seen, host):
        key = seen.values("authorization")
        path = seen.target.partition("?")[0]
        if host == AUTH:
            basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
            if key != [f"Basic {basic}"]:
                return 401, {}, b""
            return 200, {}, b'{"token": "key-of-the-day"}'
        if host == CDN:
            return (400, {}, b"") if key else (200, {}, self.image.blobs[path[1:]])
        if self.private and key != ["Bearer key-of-the-day"]:
            challenge = f'Bearer realm="https://{AUTH}/token",service="s",scope="repository:a:pull"'
            return 401, {"www-authenticate": challenge}, b""
        if path == "/v2/a/b/manifests/1":
            return 200, {"content-type": INDEX}, self.index
        if path == f"/v2/a/b/manifests/{self.manifest}":
            return 200, {"content-type": MANIFEST}, self.image.blobs[self.manifest]
        if path.startswith("/v2/a/b/blobs/"):
            return 307, {"location": f"https://{CDN}/{path.rpartition('/')[2]}"}, b""
        return 404, {}, b""


async def pulled(place, shelf, tmp_path, *, reference=f"{HOST}/a/b:1", credentials=True):
    upstream = TestUpstream(respond=shelf.respond)
    context = place.authority.server(HOST, AUTH, CDN)
    await place.listen(upstream, context)
    store = MemoryStore()
    if credentials:
        await put_credentials(store.control_secrets, HOST, "me", PASSWORD)
    images = Images(tmp_path / "images")
    granted = grant(place.service(HOST, AUTH, CDN, upstream=upstream, methods=("GET",)))

    async def make(build):
        return await from_registry(
            parse_reference(reference), build, place.registry, store.control_secrets, granted
        )

    try:
        info = await images.put("mine", make, source=reference, now=datetime.now(UTC))
    finally:
        left = {p.name for p in (tmp_path / "images").iterdir()}
        assert not any(name.startswith(".building") for name in left)
    return (await images.find(info.digest)).tree, upstream


def an_image():
    return Oci(tar(entry("f", b"below")), tar(entry("g", b"above" * 100_000)))


async def test_it_signs_in_follows_and_checks(tmp_path):
    async with world(tmp_path) as place:
        tree, upstream = await pulled(place, Shelf(an_image()), tmp_path)
        assert (tree / "f").read_bytes() == b"below"
        assert (tree / "g").stat().st_size == 500_000
        to_cdn = [one for one in upstream.seen if one.values("host") == [CDN]]
        assert len(to_cdn) == 3
        assert {one.method for one in upstream.seen} == {"GET"}


async def test_a_public_one_needs_no_credentials(tmp_path):
    async with world(tmp_path) as place:
        shelf = Shelf(an_image(), private=False)
        digest = f"{HOST}/a/b@{shelf.manifest}"
        tree, upstream = await pulled(place, shelf, tmp_path, reference=digest, credentials=False)
        assert (tree / "f").read_bytes() == b"below"
        assert not any(one.values("authorization") for one in upstream.seen)


async def test_without_credentials_it_says_so(tmp_path):
    async with world(tmp_path) as place:
        with pytest.raises(UnauthorizedError, match="401"):
            await pulled(place, Shelf(an_image()), tmp_path, credentials=False)


async def test_a_blob_that_is_not_what_was_told_is_refused(tmp_path):
    async with world(tmp_path) as place:
        image = an_image()
        shelf = Shelf(image, private=False)
        digest = image.manifest["layers"][1]["digest"]
        whole = image.blobs[digest]
        image.blobs[digest] = whole[:-1] + bytes([whole[-1] ^ 1])
        with pytest.raises(ConfigError, match=r"malformed|has the digest|cut short"):
            await pulled(place, shelf, tmp_path)
        image.blobs[digest] = whole + b"more"
        with pytest.raises(ConfigError, match="longer than"):
            await pulled(place, shelf, tmp_path)


async def test_a_manifest_that_is_not_the_one_asked_for_is_refused(tmp_path):
    async with world(tmp_path) as place:
        shelf = Shelf(an_image(), private=False)
        shelf.image.blobs[shelf.manifest] += b" "
        with pytest.raises(ConfigError, match=r"is told to have|was asked for|lacks"):
            await pulled(place, shelf, tmp_path)


async def test_the_proxy_dials_no_private_address(tmp_path):
    """The grant that pulls really have: any public host, and no other."""
    async with world(tmp_path) as place:
        store = MemoryStore()
        images = Images(tmp_path / "images")

        async def make(build):
            reference = parse_reference("127.0.0.1:5000/a:1")
            return await from_registry(
                reference, build, place.registry, store.control_secrets, GRANT
            )

        with pytest.raises((UnsupportedError, UnauthorizedError), match=r"127\.0\.0\.1"):
            async with asyncio.timeout(30):
                await images.put("mine", make, source="x", now=datetime.now(UTC))
