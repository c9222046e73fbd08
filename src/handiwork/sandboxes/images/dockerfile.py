"""A Dockerfile without an engine: buildah, in a range of ids that no sandbox has.

RUN steps are root of that range alone, in namespaces and a filter of buildah's, without a network
unless the operator gave builds the host's. Nothing is pulled: FROM is `scratch` or an image of ours.
"""

import re
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from handiwork.model.errors import ConfigError, UnsupportedError
from handiwork.process import is_root
from handiwork.sandboxes.host import TOOL_PATH
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.reading import Unpacked, file_pieces, unpack
from handiwork.sandboxes.images.tools import run_tool
from handiwork.sandboxes.images.writing import Writer

MAX_BASES = 16
PLACE = "/mnt"
"""Where the build sees its directory: its ids may not walk down to where that really is."""
_AT_PLACE = (
    *("sh", "-c"),
    f'mount --bind "$0" {PLACE} && cd {PLACE} && HOME={PLACE} TMPDIR={PLACE} exec "$@"',
)
_POLICY = '{"default":[{"type":"insecureAcceptAnything"}]}'
_FROM = re.compile(
    r"^\s*FROM\s+(?:--platform=\S+\s+)?(?P<base>\S+)(?:\s+AS\s+(?P<stage>\S+))?\s*$",
    re.IGNORECASE | re.MULTILINE,
)

Resolve = Callable[[str], Awaitable[Image]]


async def from_dockerfile(
    context: Iterable[bytes],
    dockerfile: str,
    build: Build,
    resolve: Resolve,
    *,
    first_id: int,
    network: bool = False,
) -> Unpacked:
    """Return the tree that a Dockerfile makes of a context; both are a tar's, which nobody trusts.

    `first_id` starts the 65,536 host ids that its steps run under, which must be nobody else's.
    ConfigError for what the Dockerfile asks and we do not do; UnsupportedError with its last lines
    when a step fails.
    """
    if not is_root():
        raise UnsupportedError("a Dockerfile is built as root only: import an image instead")
    if shutil.which("buildah", path=TOOL_PATH) is None:
        raise UnsupportedError("buildah is not on this host: install the package that has it")
    tree = await build.unpack(lambda d, files, told: unpack(context, d, files))
    work = build.scratch("dockerfile")
    written = work / "context"
    await build.thread(lambda: Writer(tree.sources, owned=False).write(tree.root, written))
    text = _text(written, dockerfile)
    check_steps(text)
    names = bases(text)
    buildah = _Buildah(work, build, network=network)
    for name in names:
        await buildah.take(name, await resolve(name))
    await buildah.bud(dockerfile, f"0:{first_id}:65536")
    out = await buildah.archive()
    return await build.unpack(
        lambda d, files, told: unpack(file_pieces(out), d, files, progress=told)
    )


def bases(text: str) -> list[str]:
    """Return the names that FROM lines take from outside; ConfigError where that is not to be known."""
    stages: set[str] = set()
    found: list[str] = []
    for line in _FROM.finditer(text.replace("\\\n", " ")):
        base = line["base"]
        if "$" in base:
            raise ConfigError(f"FROM {base[:80]!r}: write the image's name, not a variable")
        if base != "scratch" and base.lower() not in stages and base not in found:
            found.append(base)
        if line["stage"]:
            stages.add(line["stage"].lower())
    if len(found) > MAX_BASES:
        raise ConfigError(f"the Dockerfile stands on more than {MAX_BASES} images")
    return found


def check_steps(text: str) -> None:
    """Refuse what gives a step more than its own tree: ConfigError.

    A mount is made by buildah as root of the host, and its checks of where that leads have failed
    before (CVE-2024-1753, CVE-2024-9675). It takes quotes, escapes and comments out of flags.
    """
    if re.search(r"^\s*#\s*escape\s*=", text, re.IGNORECASE | re.MULTILINE):
        raise ConfigError("the Dockerfile has an escape directive, which is not served")
    joined = re.sub(r"^\s*#.*\n|\\[ \t]*\r?\n|[\\'\"`\s]", "", text, flags=re.MULTILINE).lower()
    for flag in ("--mount", "--security", "--device"):
        if flag in joined:
            raise ConfigError(
                f"the Dockerfile has {flag}, which is not served: COPY what a step needs"
            )


def _text(context: Path, name: str) -> str:
    """Return the Dockerfile; no link of the context leads out of it."""
    path = context
    for part in name.split("/"):
        path = path / part
        if part in ("", ".", "..") or path.is_symlink():
            raise ConfigError(f"the Dockerfile {name[:80]!r} is not a plain path in the context")
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the context has no Dockerfile {name[:80]!r} that is text") from None


class _Buildah:
    """buildah with a storage of its own, which goes with the build."""

    def __init__(self, work: Path, build: Build, *, network: bool) -> None:
        self._work = work
        self._build = build
        self._network = network
        work.chmod(0o711)
        (work / "policy.json").write_text(_POLICY)

    async def _run(self, verb: str, *argv: str, network: bool = False) -> None:
        storage = ["--root", f"{PLACE}/root", "--runroot", f"{PLACE}/run"]
        await run_tool(
            [
                *_AT_PLACE,
                str(self._work),
                "buildah",
                *storage,
                "--storage-driver",
                "vfs",
                verb,
                *argv,
            ],
            self._work,
            network=network,
            told=lambda line: self._build.progress(line[:120], 0, 0),
        )

    def _policy(self) -> tuple[str, str]:
        return "--signature-policy", f"{PLACE}/policy.json"

    async def take(self, name: str, image: Image) -> None:
        """Give buildah one of our images under its name."""
        if image.host_usr:
            raise ConfigError("FROM 'host': the host's own /usr is no image to build on")
        tar = self._work / "base.tar"
        argv = ["tar", "--numeric-owner", "--xattrs", "-cf", str(tar), "-C", str(image.tree), "."]
        await run_tool(argv, self._work)
        await self._run("from", *self._policy(), "--name", "base", "scratch")
        await self._run("add", "base", f"{PLACE}/base.tar", "/")
        await self._run(
            "commit", *self._policy(), "--rm", "--disable-compression", "base", f"localhost/{name}"
        )
        tar.unlink()

    async def bud(self, dockerfile: str, ids: str) -> None:
        """Run the Dockerfile; buildah's own isolation knows no other network than ours, which is none."""
        await self._run(
            "bud",
            *self._policy(),
            *("--isolation", "chroot", "--network", "host", "--pull-never", "--layers=false"),
            *("--userns-uid-map", ids, "--userns-gid-map", ids),
            *("--file", f"{PLACE}/context/{dockerfile}", "--tag", "localhost/handiwork-out"),
            f"{PLACE}/context",
            network=self._network,
        )

    async def archive(self) -> Path:
        """Return the image as an OCI archive."""
        target = f"oci-archive:{PLACE}/out.tar"
        await self._run(
            "push", *self._policy(), "--disable-compression", "localhost/handiwork-out", target
        )
        return self._work / "out.tar"
