"""Layers of tar archives, one over the other, become one tree (OCI image layout, layer.md). Pure.

Nothing is written while layers are read, so no name of an archive can lead anywhere: a path is a walk
through this tree, and one that meets a link or a file on its way is refused.
"""

from collections.abc import Iterable, Mapping

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.nodes import Extent, Node, directory
from handiwork.sandboxes.images.rules import IDS, ImageLimits, parts_of, shown
from handiwork.sandboxes.images.tars import Member

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_KEPT = (b"user.", b"security.capability")
_OVERLAY = (b"user.overlay.", b"trusted.overlay.")
_DEVICES = b"dev"


class Layers:
    """The tree so far; `lay` puts one more layer over it."""

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.root = directory()
        self._limits = limits or ImageLimits()
        self._entries = 0
        self._bytes = 0
        self._layers = 0

    def lay(self, members: Iterable[Member], source: int) -> None:
        """Put a layer over the tree; whiteouts take away only what lower layers hold."""
        self._layers += 1
        if self._layers > self._limits.layers:
            raise ConfigError(f"the image has more than {self._limits.layers} layers")
        added = []
        for member in members:
            self._count(member)
            parts = parts_of(member.name, self._limits)
            if parts[:1] == (_DEVICES,) and len(parts) > 1:
                continue  # every sandbox has its own /dev over the image's
            if parts and parts[-1].startswith(WHITEOUT):
                self._take_away(parts)
            else:
                added.append((parts, member))
        for parts, member in added:
            self._add(parts, member, source)

    def _count(self, member: Member) -> None:
        self._entries += 1
        self._bytes += member.size
        if self._entries > self._limits.entries:
            raise ConfigError(f"the image has more than {self._limits.entries} entries")
        if self._bytes > self._limits.total_bytes:
            raise ConfigError(f"the image holds more than {self._limits.total_bytes} bytes")

    def _take_away(self, parts: tuple[bytes, ...]) -> None:
        parent = self._existing(parts[:-1])
        if parent is None:
            return
        if parts[-1] == OPAQUE:
            parent.children.clear()
        elif not parts[-1].startswith(_RESERVED):
            parent.children.pop(parts[-1].removeprefix(WHITEOUT), None)

    def _existing(self, parts: tuple[bytes, ...]) -> Node | None:
        node = self.root
        for part in parts:
            found = node.children.get(part)
            if found is None or found.kind != "directory":
                return None
            node = found
        return node

    def _parent(self, parts: tuple[bytes, ...], name: bytes) -> Node:
        """Return the directory that a path lies in; those that no entry made are root's."""
        node = self.root
        for part in parts[:-1]:
            found = node.children.get(part)
            if found is None:
                found = node.children[part] = directory()
                self._entries += 1
            elif found.kind != "directory":
                raise ConfigError(f"the archive has a path through a {found.kind}: {shown(name)}")
            node = found
        return node

    def _add(self, parts: tuple[bytes, ...], member: Member, source: int) -> None:
        if not parts:
            if member.kind != "directory":
                raise ConfigError("the archive has something other than a directory as its root")
            _settle(self.root, member)
            return
        parent = self._parent(parts, member.name)
        if member.kind == "hard":
            parent.children[parts[-1]] = self._linked(member)
            return
        there = parent.children.get(parts[-1])
        if member.kind == "directory" and there is not None and there.kind == "directory":
            _settle(there, member)
            return
        parent.children[parts[-1]] = _settle(_made(member, source), member)

    def _linked(self, member: Member) -> Node:
        parts = parts_of(member.target, self._limits)
        parent = self._existing(parts[:-1])
        found = parent.children.get(parts[-1]) if parent is not None and parts else None
        if found is None or found.kind == "directory":
            raise ConfigError(
                f"the archive has a hard link {shown(member.name)} to {shown(member.target)},"
                " which is no file of it"
            )
        return found


def _made(member: Member, source: int) -> Node:
    if member.kind == "file":
        extent = Extent(source, member.offset, member.size)
        return Node(kind="file", mode=member.mode, content=extent)
    if member.kind == "directory":
        return directory()
    if member.kind != "link":
        raise ConfigError(f"the archive has {member.kind}: {shown(member.name)}")
    if not member.target or b"\0" in member.target or len(member.target) > 4095:
        raise ConfigError(f"the archive has a link that leads nowhere: {shown(member.name)}")
    return Node(kind="link", mode=0o777, target=member.target)


def _settle(node: Node, member: Member) -> Node:
    """Give a node the member's mode, owner, time and attributes."""
    if member.uid >= IDS or member.gid >= IDS:
        raise ConfigError(
            f"the archive's {shown(member.name)} belongs to {member.uid}:{member.gid};"
            f" a sandbox has ids below {IDS}"
        )
    node.mode = 0o777 if node.kind == "link" else member.mode
    node.uid, node.gid, node.mtime_ns = member.uid, member.gid, member.mtime_ns
    node.attributes = {} if node.kind == "link" else _kept(member)
    return node


def _kept(member: Member) -> Mapping[bytes, bytes]:
    """Return the attributes that mean something inside; those that steer an overlay are refused."""
    for name in member.attributes:
        if name.startswith(_OVERLAY):
            raise ConfigError(f"the archive has an attribute of overlayfs: {shown(member.name)}")
    kept = {name: value for name, value in member.attributes.items() if name.startswith(_KEPT)}
    if sum(len(name) + len(value) for name, value in kept.items()) > 64 << 10:
        raise ConfigError(f"the archive has too many attributes: {shown(member.name)}")
    return kept
