"""One archive with an image in it: OCI layout, docker-archive, or just a root directory. Pure.

OCI image layout 1.0 (index.json, blobs by digest) and the docker-archive of `docker save`
(manifest.json). What is written in it is a stranger's: digests are checked by whoever reads a blob.
"""

import platform
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.rules import ImageLimits, parts_of, shown
from handiwork.sandboxes.images.tars import Member

T = TypeVar("T")
MAX_NESTING = 3
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
Digest = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where a document or a layer is found, by the digest that it must have."""

    digest: Digest
    size: int
    media_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True):
    """Manifests of one name, or other indexes."""

    manifests: list[Descriptor]


class Manifest(msgspec.Struct, frozen=True):
    """One image: its settings and its layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]


class _Rootfs(msgspec.Struct, frozen=True):
    diff_ids: list[Digest]


class _Settings(msgspec.Struct, frozen=True):
    env: list[str] | None = msgspec.field(default=None, name="Env")
    workdir: str = msgspec.field(default="", name="WorkingDir")
    user: str = msgspec.field(default="", name="User")


class _Config(msgspec.Struct, frozen=True):
    rootfs: _Rootfs
    config: _Settings | None = None
    architecture: str = ""


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Where bytes lie in the archive, and the SHA-256 (hex) they must have; "" where none is told."""

    offset: int
    size: int
    sha256: str = ""
    name: str


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's blob, and the SHA-256 of its tar once it is not compressed."""

    blob: Blob
    diff_sha256: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds: layers from the bottom up, and what its image asks of a sandbox."""

    kind: str
    layers: tuple[Layer, ...] = ()
    env: Mapping[str, str] = {}
    workdir: str = ""
    user: str = ""


ReadBlob = Callable[[Blob], bytes]
"""Returns all bytes of a small blob, whose digest is right."""


def find(names: Mapping[str, Blob], read: ReadBlob, limits: ImageLimits) -> Found:
    """Tell what the archive with these files holds."""
    archive = _Archive(names, read, limits)
    if "oci-layout" in names and "index.json" in names:
        return archive.layout()
    if "manifest.json" in names:
        return archive.saved()
    return Found(kind="tree")


def files(members: Iterable[Member], limits: ImageLimits) -> dict[str, Blob]:
    """Return the files of the outer archive by path; a link is the file it leads to."""
    found: dict[str, Blob] = {}
    links: dict[str, str] = {}
    for member in members:
        try:
            path = b"/".join(parts_of(member.name, limits)).decode()
            target = member.target.decode()
        except UnicodeDecodeError:
            continue  # names of a root directory, none of an image's
        if member.kind == "file":
            found[path] = Blob(offset=member.offset, size=member.size, name=path)
        elif member.kind == "link":
            links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        elif member.kind == "hard":
            links[path] = posixpath.normpath(target)
    for path, target in links.items():
        if target in found:
            found.setdefault(path, found[target])
    return found


class _Archive:
    def __init__(self, names: Mapping[str, Blob], read: ReadBlob, limits: ImageLimits) -> None:
        self._names = names
        self._read = read
        self._limits = limits

    def layout(self) -> Found:
        index = self._decoded(self._names["index.json"], Index)
        manifest = self._manifest(index.manifests, 0)
        config = self._document(manifest.config, _Config)
        blobs = [self._blob(layer) for layer in manifest.layers]
        return _found("oci", blobs, config)

    def saved(self) -> Found:
        listed = self._decoded(self._names["manifest.json"], list[_Saved])
        if len(listed) != 1:
            raise ConfigError(f"the archive holds {len(listed)} images: save one alone")
        config = self._decoded(self._named(listed[0].config), _Config)
        return _found("docker", [self._named(name) for name in listed[0].layers], config)

    def _manifest(self, offered: Sequence[Descriptor], depth: int) -> Manifest:
        chosen = choose(offered)
        if is_index(chosen.media_type):
            if depth >= MAX_NESTING:
                raise ConfigError("the archive's index leads to too many others")
            return self._manifest(self._document(chosen, Index).manifests, depth + 1)
        return self._document(chosen, Manifest)

    def _document(self, descriptor: Descriptor, kind: type[T]) -> T:
        return self._decoded(self._blob(descriptor), kind)

    def _decoded(self, blob: Blob, kind: type[T]) -> T:
        if blob.size > self._limits.document_bytes:
            raise ConfigError(f"{blob.name} is larger than {self._limits.document_bytes} bytes")
        try:
            return msgspec.json.decode(self._read(blob), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{blob.name} is not what it should be: {error}") from None

    def _blob(self, descriptor: Descriptor) -> Blob:
        sha256 = descriptor.digest.removeprefix("sha256:")
        blob = self._named(f"blobs/sha256/{sha256}")
        if blob.size != descriptor.size:
            raise ConfigError(
                f"the archive's {blob.name} has {blob.size} bytes, but is told to have"
                f" {descriptor.size}"
            )
        return msgspec.structs.replace(blob, sha256=sha256)

    def _named(self, name: str) -> Blob:
        found = self._names.get(posixpath.normpath(name))
        if found is None:
            raise ConfigError(f"the archive lacks {shown(name.encode())}, which it names")
        return found


def is_index(media_type: str) -> bool:
    """Say whether a document names others, one for each machine."""
    return "index" in media_type or "list" in media_type


def choose(offered: Sequence[Descriptor]) -> Descriptor:
    """Return the one that runs on this machine; ConfigError when it is not one."""
    ours = _ARCHITECTURES.get(platform.machine(), platform.machine())
    fits = [one for one in offered if _runs_on(one, ours)]
    if len(fits) != 1:
        raise ConfigError(f"there are {len(fits)} images for linux/{ours}: there must be one")
    return fits[0]


def _runs_on(one: Descriptor, architecture: str) -> bool:
    if one.platform is None or not one.platform.os:
        return True
    return (one.platform.os, one.platform.architecture) == ("linux", architecture)


def _found(kind: str, blobs: list[Blob], config: _Config) -> Found:
    told = config.rootfs.diff_ids
    if len(told) != len(blobs):
        raise ConfigError(f"the image has {len(blobs)} layers, but tells of {len(told)}")
    settings = config.config or _Settings()
    pairs = zip(blobs, told, strict=True)
    return Found(
        kind=kind,
        layers=tuple(Layer(blob=b, diff_sha256=d.removeprefix("sha256:")) for b, d in pairs),
        env=dict(each.split("=", 1) for each in settings.env or [] if "=" in each),
        workdir=settings.workdir,
        user=settings.user,
    )
