"""`handiwork sandbox …`: sandboxes of your own, beside those of sessions."""

import asyncio
from typing import Annotated

import msgspec
import typer

from handiwork.cli import sandbox_code, sandbox_exec, sandbox_tree
from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show, show_one
from handiwork.cli.terminal import run_here
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import ExecResult, ProcessTable

app = typer.Typer(help="Sandboxes of your own, beside those of sessions.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    tier: Annotated[str, typer.Option(help="Empty: the default.")] = "",
    image: Annotated[str, typer.Option(help="Empty: the default.")] = "",
    size: Annotated[str, typer.Option(help="small, standard or large; empty: the default.")] = "",
    policy: Annotated[str, typer.Option(help="What it may reach; empty: nothing.")] = "",
) -> None:
    """Make a sandbox and print its id."""

    async def verb(client: Handiwork) -> str:
        return (await client.sandboxes.create(tier=tier, image=image, size=size, policy=policy)).id

    invocation: Invocation = context.obj
    say(invocation.call(verb))


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List sandboxes that exist."""
    invocation: Invocation = context.obj
    rows = [box.record for box in invocation.call(lambda client: client.sandboxes.list())]
    show(rows, ("id", "state", "tier", "session_id", "policy", "created_at"), as_json=as_json)


@app.command("show")
def show_(
    context: typer.Context,
    sandbox_id: str,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show one sandbox."""

    async def verb(client: Handiwork) -> object:
        return (await client.sandboxes.get(sandbox_id)).record

    invocation: Invocation = context.obj
    show_one(invocation.call(verb), as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True})
def shell(
    context: typer.Context,
    sandbox_id: str,
    command: Annotated[list[str] | None, typer.Argument(help="Empty: a login shell.")] = None,
    cwd: Annotated[str, typer.Option()] = "/workspace",
    user: Annotated[str, typer.Option()] = "root",
) -> None:
    """Open a terminal in a sandbox, here; its exit code becomes ours."""

    async def verb(client: Handiwork) -> ExecResult:
        box = await client.sandboxes.get(sandbox_id)
        return await run_here(box, command or ["/bin/sh", "-l"], cwd=cwd, user=user)

    invocation: Invocation = context.obj
    result = invocation.call(verb)
    sandbox_exec.tell(result)
    raise typer.Exit(result.exit_code)


PS_COLUMNS = ("pid", "parent", "uid", "state", "cpu_seconds", "memory_kib", "listens", "command")


@app.command()
def ps(
    context: typer.Context,
    sandbox_id: str,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List what runs in a sandbox, what it uses, and where it listens."""

    async def verb(client: Handiwork) -> ProcessTable:
        return await (await client.sandboxes.get(sandbox_id)).ps()

    invocation: Invocation = context.obj
    table = invocation.call(verb)
    if as_json:
        show_one(table, as_json=True)
        return
    listens: dict[int, list[str]] = {}
    for one in table.listeners:
        listens.setdefault(one.pid, []).append(f"{one.address}:{one.port}")
    rows = [
        {**msgspec.structs.asdict(one), "listens": listens.get(one.pid, ())}
        for one in table.processes
    ]
    show(rows, PS_COLUMNS, as_json=False)
    for place in listens.get(0, ()):
        say(f"somebody listens on {place}")


@app.command()
def watch(
    context: typer.Context,
    sandbox_id: str,
    path: Annotated[str, typer.Argument(help="A directory inside.")],
    recursive: Annotated[bool, typer.Option(help="Those below it as well.")] = True,
) -> None:
    """Print what changes in a directory, a line each, until it is gone."""

    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        async with box.files.watch(path, recursive=recursive) as found:
            async for event in found:
                say(f"{event.change.value} {event.path}{'/' if event.directory else ''}")

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def forward(
    context: typer.Context,
    sandbox_id: str,
    port: Annotated[int, typer.Argument(min=1, max=65535, help="Where it listens inside.")],
    listen: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1 here; 0: a free one.")
    ] = 0,
) -> None:
    """Lead a port of this machine's loopback into a sandbox, until interrupted."""

    async def verb(client: Handiwork) -> None:
        box = await client.sandboxes.get(sandbox_id)
        async with box.forward(port, listen=listen, on_error=_complain) as ours:
            say(f"127.0.0.1:{ours} leads to port {port} of {sandbox_id}")
            await asyncio.Event().wait()

    invocation: Invocation = context.obj
    invocation.call(verb)


def _complain(error: HandiworkError) -> None:
    typer.echo(f"handiwork: {error}", err=True)


app.command("exec", context_settings=sandbox_exec.SETTINGS)(sandbox_exec.execute)
app.command("code")(sandbox_code.code)
app.command("get-tree")(sandbox_tree.get)
app.command("put-tree")(sandbox_tree.put)


def _each(name: str, verb: str, text: str) -> None:
    def command(context: typer.Context, sandbox_id: str) -> None:
        async def act(client: Handiwork) -> None:
            await getattr(await client.sandboxes.get(sandbox_id), verb)()

        invocation: Invocation = context.obj
        invocation.call(act)

    command.__doc__ = text
    app.command(name)(command)


_each("sleep", "sleep", "End its processes, keep its files.")
_each("wake", "wake", "Start it again from its files.")
_each("delete", "close", "End it and delete its files.")
