"""`handiwork image …`: what sandboxes stand on."""

import sys
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import console, plain, say, show, show_one
from handiwork.client.handiwork import Handiwork
from handiwork.client.images import Told
from handiwork.model.errors import ConfigError
from handiwork.model.image import ImageInfo, ImageProgress
from handiwork.model.recipe import MAX_RECIPE_BYTES, parse_recipe

app = typer.Typer(help="What sandboxes stand on.", no_args_is_help=True)

DEFAULT_RECIPE = "default"
MIB = 1 << 20
MAX_PASSWORD_CHARS = 8192
Json = Annotated[bool, typer.Option("--json")]
Build = Callable[[Handiwork, Told], Awaitable[ImageInfo]]


@app.command()
def build(
    context: typer.Context,
    name: str,
    source: Annotated[
        str, typer.Argument(help="A recipe (.toml), 'default', or a directory with a Dockerfile.")
    ] = DEFAULT_RECIPE,
    file: Annotated[str, typer.Option(help="The Dockerfile, below the directory.")] = "Dockerfile",
    as_json: Json = False,
) -> None:
    """Build an image of a Debian recipe or a Dockerfile."""
    path = Path(source)
    if source != DEFAULT_RECIPE and path.is_dir():
        _make(
            context,
            lambda client, told: client.images.build_dockerfile(name, path, file=file, told=told),
            as_json=as_json,
        )
        return
    text = _recipe(source)
    parse_recipe(text)
    _make(
        context,
        lambda client, told: client.images.build_recipe(name, text, told=told),
        as_json=as_json,
    )


@app.command("import")
def import_(
    context: typer.Context,
    name: str,
    path: Annotated[
        Path, typer.Argument(help="An OCI layout (directory or tar), docker-archive or root tar.")
    ],
    as_json: Json = False,
) -> None:
    """Make an image of an archive that another tool wrote."""
    _make(
        context,
        lambda client, told: client.images.import_archive(name, path, told=told),
        as_json=as_json,
    )


@app.command()
def pull(context: typer.Context, name: str, reference: str, as_json: Json = False) -> None:
    """Fetch an image from a registry: HOST/PATH:TAG or HOST/PATH@sha256:DIGEST."""
    _make(
        context,
        lambda client, told: client.images.pull(name, reference, told=told),
        as_json=as_json,
    )


@app.command()
def login(context: typer.Context, host: str, user: str) -> None:
    """Keep a registry's password, read from standard input or typed without echo."""
    if sys.stdin.isatty():
        given = str(typer.prompt("password", hide_input=True))
    else:
        given = sys.stdin.read(MAX_PASSWORD_CHARS).rstrip("\n")
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.images.log_in(host, user, given))


@app.command()
def logout(context: typer.Context, host: str) -> None:
    """Forget a registry's password."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.images.log_out(host))


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List every image; one without a name is kept for what may stand on it."""
    invocation: Invocation = context.obj
    found = invocation.call(lambda client: client.images.list())
    if as_json:
        show(found, (), as_json=True)
        return
    rows = [
        {
            "names": one.names or ("-",),
            "digest": one.digest[:16],
            "size": f"{one.size_bytes / MIB:.1f} MiB",
            "entries": one.entries,
            "source": "damaged" if one.damaged else one.source,
            "created_at": one.created_at.isoformat(timespec="seconds") if one.created_at else "",
        }
        for one in found
    ]
    show(rows, ("names", "digest", "size", "entries", "source", "created_at"), as_json=False)


@app.command()
def inspect(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one image, by name or digest."""
    invocation: Invocation = context.obj
    show_one(invocation.call(lambda client: client.images.get(name)), as_json=as_json)


@app.command()
def rm(context: typer.Context, name: str) -> None:
    """Forget a name, or a digest; refused while a sandbox stands on the image."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.images.remove(name))


def _recipe(source: str) -> bytes:
    if source == DEFAULT_RECIPE:
        return (resources.files("handiwork") / "recipes/default.toml").read_bytes()
    try:
        with Path(source).open("rb") as file:
            return file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from None


def _make(context: typer.Context, verb: Build, *, as_json: bool) -> None:
    """Build with a bar for people; programs get the image alone."""
    invocation: Invocation = context.obj
    if as_json:
        info = invocation.call(lambda client: verb(client, lambda _: None))
        show_one(info, as_json=True)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        bar = bars.add_task("starting", total=None)
        info = invocation.call(lambda client: verb(client, _shown_in(bars, bar)))
    say(f"{', '.join(info.names)}: {info.digest[:16]}, {info.size_bytes / MIB:.1f} MiB")


def _shown_in(bars: Progress, bar: TaskID) -> Told:
    def told(progress: ImageProgress) -> None:
        text = plain(progress.stage.replace("\n", " "))[:100]
        bars.update(bar, description=text, completed=progress.done, total=progress.total or None)

    return told
