"""An image from a registry (OCI distribution 1.0), through a way out of the egress proxy.

The proxy resolves, checks and dials whatever host a registry leads to (rule E12). What comes is put
together as an OCI layout and read as one that nobody trusts: every digest is checked there.
"""

import base64
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2
import msgspec

from handiwork.model.errors import ConfigError, UnauthorizedError, UnsupportedError
from handiwork.sandboxes.images.archive import Descriptor, Index, Manifest, choose, is_index
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.writing import Progress

T = TypeVar("T")
MAX_REDIRECTS = 5
SILENT_SECONDS = 60.0
ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        *("oci.image.manifest.v1", "oci.image.index.v1"),
        *("docker.distribution.manifest.v2", "docker.distribution.manifest.list.v2"),
    )
)
_REFERENCE = re.compile(
    r"(?P<host>[a-z0-9.-]+\.[a-z0-9.-]+(:[0-9]{1,5})?)/"
    r"(?P<path>[a-z0-9]+([._-]{1,2}[a-z0-9]+)*(/[a-z0-9]+([._-]{1,2}[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Reference(msgspec.Struct, frozen=True):
    """`HOST/PATH:TAG` or `HOST/PATH@DIGEST`; no host is ever meant without being named."""

    host: str
    path: str
    version: str


def parse_reference(text: str) -> Reference:
    """Return what a reference says; ConfigError."""
    found = _REFERENCE.fullmatch(text)
    if found is None or len(text) > 512:
        raise ConfigError(
            f"{text[:120]!r} is no reference: write HOST/PATH:TAG or HOST/PATH@sha256:DIGEST"
        )
    return Reference(found["host"], found["path"], found["tag"] or found["digest"])


class Registry:
    """One image of one registry. `credentials` are (user, password), for this registry alone."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        reference: Reference,
        credentials: tuple[str, str] | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        self._http = http
        self._reference = reference
        self._credentials = credentials
        self._limits = limits or ImageLimits()
        self._authorization = ""

    async def parts(
        self, progress: Progress
    ) -> AsyncGenerator[tuple[str, AsyncIterator[bytes]], None]:
        """Yield the files of the image's OCI layout; the bytes of each are to be read before the next."""
        top, kind = await self._document(self._reference.version)
        digest = _sha256(top)
        wanted = self._reference.version
        if wanted.startswith("sha256:") and digest != wanted:
            raise ConfigError(f"the registry answered {digest} where {wanted} was asked for")
        if is_index(kind):
            chosen = choose(_decoded(top, Index).manifests)
            top, _ = await self._document(chosen.digest)
            digest = chosen.digest
        manifest = _decoded(top, Manifest)
        told = Descriptor(digest, len(top))
        yield "oci-layout", _given(b"{}")
        yield "index.json", _given(msgspec.json.encode(Index([told])))
        yield _blob_name(digest), _given(top)
        blobs = {one.digest: one for one in (manifest.config, *manifest.layers)}
        total = sum(one.size for one in blobs.values())
        if total > self._limits.archive_bytes:
            raise ConfigError(f"the image is larger than {self._limits.archive_bytes} bytes")
        done = 0
        for blob in blobs.values():
            yield _blob_name(blob.digest), self._blob(blob, done, total, progress)
            done += blob.size

    async def _blob(
        self, blob: Descriptor, done: int, total: int, progress: Progress
    ) -> AsyncIterator[bytes]:
        got = 0
        async with self._opened(f"blobs/{blob.digest}", "*/*") as answer:
            async for piece in answer.aiter_raw():
                got += len(piece)
                if got > blob.size:
                    raise ConfigError(f"{blob.digest} is longer than the {blob.size} bytes told")
                progress("pulling", done + got, total)
                yield piece

    async def _document(self, version: str) -> tuple[bytes, str]:
        async with self._opened(f"manifests/{version}", ACCEPT) as answer:
            body = await _bounded(answer, self._limits.document_bytes)
            return body, answer.headers.get("content-type", "")

    @asynccontextmanager
    async def _opened(self, place: str, accept: str) -> AsyncIterator[httpx2.Response]:
        """Yield a good answer; signs in when the registry asks for it, follows where it leads."""
        url = f"https://{self._reference.host}/v2/{self._reference.path}/{place}"
        answer = await self._get(url, {"accept": accept, **self._signed()})
        try:
            if answer.status_code == 401 and not self._authorization:
                challenge = answer.headers.get("www-authenticate", "")
                await answer.aclose()
                self._authorization = await self._sign_in(challenge)
                answer = await self._get(url, {"accept": accept, **self._signed()})
            for _ in range(MAX_REDIRECTS):
                if not answer.is_redirect:
                    break
                url = _led_to(url, answer.headers.get("location", ""))
                await answer.aclose()
                same = urlsplit(url).netloc == self._reference.host
                answer = await self._get(
                    url, {"accept": accept, **(self._signed() if same else {})}
                )
            _check(answer, url)
            yield answer
        finally:
            await answer.aclose()

    def _signed(self) -> Mapping[str, str]:
        return {"authorization": self._authorization} if self._authorization else {}

    async def _sign_in(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        basic = self._basic()
        if scheme.lower() == "basic" and basic:
            return basic
        fields = dict(_CHALLENGE.findall(rest))
        realm = fields.get("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme != "https":
            raise UnauthorizedError(
                f"the registry {self._reference.host} wants to know who asks: store credentials"
                " with `handiwork image login`"
            )
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        answer = await self._get(
            f"{realm}?{urlencode(query)}", {"authorization": basic} if basic else {}
        )
        try:
            _check(answer, realm)
            body = await _bounded(answer, 256 * 1024)
        finally:
            await answer.aclose()
        given = _decoded(body, dict[str, msgspec.Raw])
        key = _text(given.get("token")) or _text(given.get("access_token"))
        return " ".join(("Bearer", key))

    def _basic(self) -> str:
        if self._credentials is None:
            return ""
        return " ".join(("Basic", base64.b64encode(":".join(self._credentials).encode()).decode()))

    async def _get(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.username or not parts.hostname:
            raise ConfigError(f"the registry leads to {url[:120]!r}, which is no https address")
        request = self._http.build_request(
            "GET",
            "http://exit/",
            headers={**headers, "host": parts.netloc, "accept-encoding": "identity"},
            extensions={"target": url.encode("ascii", "strict")},
        )
        try:
            return await self._http.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise UnsupportedError(
                f"{parts.netloc} was not reached: {type(error).__name__}"
            ) from None


@asynccontextmanager
async def way_out(exit_path: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client whose every request goes through a socket of the egress proxy."""
    transport = httpx2.AsyncHTTPTransport(uds=exit_path, trust_env=False)
    async with httpx2.AsyncClient(
        transport=transport, timeout=SILENT_SECONDS, follow_redirects=False, trust_env=False
    ) as http:
        yield http


def _check(answer: httpx2.Response, url: str) -> None:
    refused = answer.headers.get("x-handiwork-error", "")
    where = urlsplit(url).netloc
    if refused:
        raise UnsupportedError(f"{where} was not reached: {refused[:300]}")
    if answer.status_code in (401, 403):
        raise UnauthorizedError(f"{where} refused: status {answer.status_code}")
    if answer.status_code != 200:
        raise ConfigError(f"{where} answered {answer.status_code}: is there such an image?")


def _led_to(url: str, location: str) -> str:
    if not location or not location.isascii():
        raise ConfigError("the registry leads nowhere")
    return urljoin(url, location)


async def _bounded(answer: httpx2.Response, limit: int) -> bytes:
    kept = bytearray()
    async for piece in answer.aiter_raw():
        kept += piece
        if len(kept) > limit:
            raise ConfigError("the registry's answer is too long")
    return bytes(kept)


async def _given(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _text(raw: msgspec.Raw | None) -> str:
    return _decoded(bytes(raw), str) if raw is not None else ""


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the registry's answer is not what it should be: {error}") from None


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
