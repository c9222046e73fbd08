"""`handiwork snapshot …`: what a sandbox wrote, kept elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show, show_one
from handiwork.client.handiwork import Handiwork
from handiwork.model.sandbox import SandboxRecord
from handiwork.model.snapshot import Snapshot, SnapshotDiff, SnapshotState

app = typer.Typer(help="What sandboxes wrote, kept elsewhere.", no_args_is_help=True)

MIB = 1 << 20
Json = Annotated[bool, typer.Option("--json")]


@app.command("list")
def list_(context: typer.Context, sandbox_id: str, as_json: Json = False) -> None:
    """List a sandbox's snapshots, the newest first, and why the last try failed."""

    async def verb(client: Handiwork) -> SnapshotState:
        return await (await client.sandboxes.get(sandbox_id)).snapshots.state()

    invocation: Invocation = context.obj
    state = invocation.call(verb)
    if as_json:
        show_one(state, as_json=True)
        return
    rows = [
        {
            "number": one.number,
            "taken": one.created_at.isoformat(timespec="seconds"),
            "why": one.reason,
            "files": one.entries,
            "size": f"{one.content_bytes / MIB:.1f} MiB",
            "new": f"{one.new_bytes / MIB:.1f} MiB",
            "skipped": one.skipped_count,
            "pins": one.pins,
        }
        for one in state.snapshots
    ]
    columns = ("number", "taken", "why", "files", "size", "new", "skipped", "pins")
    show(rows, columns, as_json=False)
    if state.status.failure:
        say(f"the last try failed at {state.status.failed_at}: {state.status.failure}")


@app.command()
def take(context: typer.Context, sandbox_id: str, as_json: Json = False) -> None:
    """Take one now and print its number; a running sandbox is frozen for a moment."""

    async def verb(client: Handiwork) -> Snapshot:
        return await (await client.sandboxes.get(sandbox_id)).snapshots.take()

    invocation: Invocation = context.obj
    taken = invocation.call(verb)
    if as_json:
        show_one(taken, as_json=True)
        return
    say(str(taken.number))
    for line in taken.skipped:
        say(f"left out: {line}")


@app.command()
def rollback(
    context: typer.Context,
    sandbox_id: str,
    number: int,
    drop_present: Annotated[
        bool, typer.Option("--drop-present", help="Do not take what is there before.")
    ] = False,
) -> None:
    """Put a snapshot in the place of a sandbox's files; its processes end."""

    async def verb(client: Handiwork) -> SandboxRecord:
        box = await client.sandboxes.get(sandbox_id)
        return await box.snapshots.rollback(number, keep_present=not drop_present)

    invocation: Invocation = context.obj
    say(invocation.call(verb).state.value)


@app.command()
def diff(
    context: typer.Context,
    sandbox_id: str,
    before: int,
    after: int,
    path: Annotated[str, typer.Option(help="Only below it.")] = "",
    limit: Annotated[int, typer.Option()] = 1000,
    as_json: Json = False,
) -> None:
    """Tell what was added, removed or changed from one snapshot to another."""

    async def verb(client: Handiwork) -> SnapshotDiff:
        box = await client.sandboxes.get(sandbox_id)
        return await box.snapshots.diff(before, after, path=path, limit=limit)

    invocation: Invocation = context.obj
    found = invocation.call(verb)
    if as_json:
        show_one(found, as_json=True)
        return
    show(found.changes, ("change", "path"), as_json=False)
    if found.truncated:
        say(f"there is more than {limit}; give --path or a larger --limit")


@app.command()
def pin(context: typer.Context, sandbox_id: str, number: int, name: str) -> None:
    """Keep a snapshot under a name until that is removed."""

    async def verb(client: Handiwork) -> None:
        await (await client.sandboxes.get(sandbox_id)).snapshots.pin(number, name)

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def unpin(context: typer.Context, sandbox_id: str, name: str) -> None:
    """Remove a name."""

    async def verb(client: Handiwork) -> None:
        await (await client.sandboxes.get(sandbox_id)).snapshots.unpin(name)

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def rm(context: typer.Context, sandbox_id: str, number: int) -> None:
    """Forget a snapshot that is not pinned."""

    async def verb(client: Handiwork) -> None:
        await (await client.sandboxes.get(sandbox_id)).snapshots.remove(number)

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def export(
    context: typer.Context,
    sandbox_id: str,
    number: int,
    path: Annotated[Path, typer.Argument(help="A new file; whoever has it can read it.")],
) -> None:
    """Write a snapshot to one file."""

    async def verb(client: Handiwork) -> int:
        return await (await client.sandboxes.get(sandbox_id)).snapshots.export(number, path)

    invocation: Invocation = context.obj
    say(f"{path}: {invocation.call(verb) / MIB:.1f} MiB")


@app.command("import")
def import_(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    tier: Annotated[str, typer.Option(help="Empty: the default.")] = "",
    size: Annotated[str, typer.Option(help="small, standard or large; empty: the default.")] = "",
    policy: Annotated[str, typer.Option(help="What it may reach; empty: as by `create`.")] = "",
) -> None:
    """Make a sandbox of such a file and print its id; it sleeps."""

    async def verb(client: Handiwork) -> str:
        made = await client.sandboxes.import_snapshot(path, tier=tier, size=size, policy=policy)
        return made.id

    invocation: Invocation = context.obj
    say(invocation.call(verb))


@app.command()
def fork(
    context: typer.Context,
    sandbox_id: str,
    count: Annotated[int, typer.Option()] = 1,
    number: Annotated[int | None, typer.Option(help="A snapshot; else as it is now.")] = None,
    policy: Annotated[str, typer.Option(help="What they may reach; empty: as by `create`.")] = "",
    sleeping: Annotated[bool, typer.Option("--sleeping", help="Do not start them.")] = False,
) -> None:
    """Make sandboxes of one, of its files at one moment, and print their ids."""

    async def verb(client: Handiwork) -> list[str]:
        box = await client.sandboxes.get(sandbox_id)
        made = await box.fork(count, number=number, policy=policy, wake=not sleeping)
        return [one.id for one in made]

    invocation: Invocation = context.obj
    for made in invocation.call(verb):
        say(made)
