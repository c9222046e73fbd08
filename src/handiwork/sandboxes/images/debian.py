"""A Debian image from a recipe, by mmdebstrap: packages are checked by apt against Debian's keys.

They come from where the host's own apt gets them, or from `images.debian_mirror`; a recipe names no
address. What comes out is an archive like any other, and read as one that nobody trusts.
"""

import os
from pathlib import Path

from handiwork.model.errors import UnsupportedError
from handiwork.model.recipe import Recipe
from handiwork.process import is_root
from handiwork.sandboxes.images import sources, spool
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.fit import put_file
from handiwork.sandboxes.images.reading import Unpacked, of_recipe, unpack
from handiwork.sandboxes.images.tools import run_tool

APT = Path("/etc/apt")


async def from_recipe(
    recipe: Recipe, build: Build, *, mirror: str = "", apt: Path = APT
) -> Unpacked:
    """Return the tree of a recipe; UnsupportedError says what this host lacks for it."""
    if not is_root():
        raise UnsupportedError(
            "a Debian recipe is built as root only: import an image that was built elsewhere"
        )
    work = build.scratch("debian")
    origin = mirror or str(_host_sources(recipe.suite, work, apt))
    file = spool.unnamed(work)
    try:
        argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
        argv += ["--skip=output/dev", '--aptopt=APT::Sandbox::User "root"']
        argv += [f"--include={package}" for package in ("ca-certificates", *recipe.packages)]
        argv += [recipe.suite, "-", origin]
        await run_tool(
            argv,
            work,
            stdout=file,
            network=True,
            told=lambda line: build.progress(line.removeprefix("I: ")[:120], 0, 0),
        )
        size = os.lseek(file, 0, os.SEEK_END)
        tar = spool.pieces(file, 0, size)
        made = await build.unpack(lambda d, files, told: unpack(tar, d, files, progress=told))
    finally:
        os.close(file)
    for each in recipe.files:
        put_file(made.root, each.path.encode(), each.content.encode(), int(each.mode, 8))
    return of_recipe(made, recipe.env)


def _host_sources(suite: str, work: Path, apt: Path) -> Path:
    """Write down which of the host's sources serve the suite."""
    found = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    texts = [(path.name, path.read_text(errors="replace")) for path in found if path.is_file()]
    lines, stanzas = sources.of_suite(suite, texts)
    if not lines and not stanzas:
        raise UnsupportedError(
            f"this host's apt sources have no suite {suite!r}: set images.debian_mirror in"
            " handiwork.toml to a mirror that has it"
        )
    path = work / ("host.sources" if stanzas else "host.list")
    path.write_text((stanzas or lines) + "\n")
    return path
