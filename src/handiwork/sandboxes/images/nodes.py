"""An image's tree in memory: what each name stands for and where its bytes lie. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of one of the files that an image is made of."""

    source: int
    offset: int
    size: int


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """One inode: names that are hard links of each other hold the same node.

    `content` is a file's; `target` a link's; `children` a directory's.
    """

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    attributes: Mapping[bytes, bytes] = field(default_factory=dict)
    content: bytes | Extent = b""
    target: bytes = b""
    children: dict[bytes, "Node"] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.content.size if isinstance(self.content, Extent) else len(self.content)


def directory(mode: int = 0o755) -> Node:
    """Return an empty directory of root's."""
    return Node(kind="directory", mode=mode)


def walk(node: Node, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    """Yield every path below a directory in one order, parents first."""
    for name, child in sorted(node.children.items()):
        here = path + b"/" + name if path else name
        yield here, child
        if child.kind == "directory":
            yield from walk(child, here)
