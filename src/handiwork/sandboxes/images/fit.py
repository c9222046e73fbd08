"""What every sandbox expects of its image, put into a tree that may lack it. Pure."""

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.nodes import Extent, Node, directory
from handiwork.sandboxes.images.rules import shown

CA_BUNDLE = b"etc/ssl/certs/ca-certificates.crt"
MAX_BUNDLE_BYTES = 4 << 20
_HOPS = 16
_PLACES = {
    **dict.fromkeys(
        (b"dev", b"etc", b"home", b"proc", b"run", b"sys", b"var", b"workspace"), 0o755
    ),
    b"root": 0o700,
    b"tmp": 0o1777,
}
_FILES = {
    b"hosts": b"127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n",
    b"hostname": b"sandbox\n",
    b"resolv.conf": b"nameserver 127.0.0.1\noptions ndots:0\n",
}
_APT = {b"10sandbox": b'APT::Sandbox::User "root";\n'}


def fit(root: Node) -> None:
    """Add mount points and the names of a sandbox; what is there under another kind is kept."""
    for name, mode in _PLACES.items():
        root.children.setdefault(name, directory(mode))
    etc = root.children[b"etc"]
    _put(etc, _FILES)
    apt = find(root, b"etc/apt/apt.conf.d")
    if apt is not None:
        _put(apt, _APT)  # apt's own user may not be there, and needs not be


def _put(place: Node, files: dict[bytes, bytes]) -> None:
    if place.kind == "directory":
        for name, content in files.items():
            place.children[name] = Node(kind="file", mode=0o644, content=content)


def put_file(root: Node, path: bytes, content: bytes, mode: int) -> None:
    """Add a file at an absolute path; ConfigError where that leads through a link or a file."""
    place = root
    *parents, name = path.strip(b"/").split(b"/")
    for part in parents:
        place = place.children.setdefault(part, directory())
        if place.kind != "directory":
            raise ConfigError(f"{shown(path)} leads through a {place.kind} of the image")
    there = place.children.get(name)
    if there is not None and there.kind == "directory":
        raise ConfigError(f"{shown(path)} is a directory of the image")
    place.children[name] = Node(kind="file", mode=mode, content=content)


def find(root: Node, path: bytes) -> Node | None:
    """Return what a path of the tree leads to, links followed within it; None if nowhere."""
    trail: list[Node] = [root]
    todo = path.split(b"/")
    hops = 0
    while todo:
        part = todo.pop(0)
        if part in (b"", b"."):
            continue
        if part == b"..":
            trail = trail[:-1] or [root]
            continue
        found = trail[-1].children.get(part)
        if found is None:
            return None
        if found.kind != "link":
            trail.append(found)
            continue
        hops += 1
        if hops > _HOPS:
            return None
        trail = [root] if found.target.startswith(b"/") else trail
        todo = found.target.split(b"/") + todo
    return trail[-1]


def bundle(root: Node) -> bytes | Extent:
    """Return the certificates that the image trusts, or where they lie; b"" when it has none."""
    found = find(root, CA_BUNDLE)
    if found is None or found.kind != "file" or found.size > MAX_BUNDLE_BYTES:
        return b""
    return found.content
