"""`handiwork init`: settings written, the environment key stored and proven."""

import asyncio
import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from handiwork import config, process
from handiwork.cli.output import marked, say
from handiwork.model.errors import BrainUnavailableError, ConfigError
from handiwork.sessions.webhooks import WEBHOOK_KEYS, keys_of
from handiwork.store.environment_keys import ENVIRONMENT_KEY
from handiwork.store.layout import Layout, read_private

if TYPE_CHECKING:
    from handiwork.brains.environment_check import Proven
    from handiwork.cli.invocation import Invocation

DEFAULT_URL = "https://api.anthropic.com"
MAX_KEY_BYTES = 8192

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

TEMPLATE = """\
# Settings of Handiwork. Every key is described in docs/reference/settings.md; one that is not known
# is an error. No secret stands here: keys are kept sealed in the data directory.
{data_dir}
[[environments]]
id = {environment_id}
base_url = {base_url}
# The environment key was stored by `handiwork init`. To read it from a file of yours instead:
# key_file = "/etc/handiwork/environment-key"     # mode 600, the key alone
# tier = "namespace"        # tier of its sandboxes; `handiwork doctor` says what works here
# policy = "work"           # policy of all its sessions; without one nothing leaves a sandbox

[local_brain]
enabled = true              # the brain of our own, for `handiwork run` and any client of the SDK

# [sessions]
# max_sessions = 32         # served at once
# idle_seconds = 60.0       # a session with nothing to do sleeps after this

# [webhooks]                # optional: polling is enough. docs/guides/webhooks.md
# key_files = ["/etc/handiwork/webhook-keys"]     # beside a key that `handiwork init` stored
"""


def init(  # noqa: PLR0913, PLR0917  each is an option that a person types
    context: typer.Context,
    environment: Annotated[str, typer.Option(help="The environment's id (env_…).")] = "",
    base_url: Annotated[str, typer.Option(help="The service that holds it.")] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="File with the environment key; else asked, or on stdin.")
    ] = None,
    webhook_key_file: Annotated[
        Path | None, typer.Option(help="File with the webhook's signing key (optional).")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where state is kept.")] = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("handiwork.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Go on when the brain cannot be reached.")
    ] = False,
) -> None:
    """Write handiwork.toml, store the environment key, prove it at the brain."""
    invocation: Invocation = context.obj
    if output.exists() and not force:
        raise ConfigError(f"{output} exists; edit it, name another with --output, or give --force")
    layout = _layout(invocation, data_dir)
    layout.prepare(egress_id=None, brain_id=None)
    held = _lock(layout)
    try:
        environment = environment or _asked("environment id", "--environment")
        if not _ID.fullmatch(environment):
            raise ConfigError(f"{environment[:80]!r} is no environment id")
        base_url = base_url or (
            _asked("base URL", "", default=DEFAULT_URL) if _typing() else DEFAULT_URL
        )
        _check_url(base_url)
        environment_key = _environment_key(key_file)
        webhook_keys = _webhook_keys(webhook_key_file)
        _prove(environment, environment_key, base_url, unproven=unproven)
        asyncio.run(_store(layout, environment, environment_key, webhook_keys))
    finally:
        os.close(held)
    _write(output, _settings(environment, base_url, data_dir), force=force)
    _tell(output, layout, has_webhook_key=bool(webhook_keys))


def _layout(invocation: "Invocation", data_dir: Path | None) -> Layout:
    if data_dir is not None:
        return Layout(data_dir.absolute())
    settings = invocation.settings
    return Layout(config.data_dir(settings, is_root=process.is_root(), home=Path.home()))


def _lock(layout: Layout) -> int:
    try:
        return layout.lock()
    except ConfigError:
        raise ConfigError(
            f"a control plane runs on {layout.root}; stop it, then run `handiwork init` again"
        ) from None


def _typing() -> bool:
    return sys.stdin.isatty()


def _asked(what: str, option: str, default: str | None = None) -> str:
    if not _typing():
        raise ConfigError(f"give {option}: standard input is no terminal to ask on")
    return str(typer.prompt(what, default=default)).strip()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        fits = fits and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or not url.isascii() or not url.isprintable() or set(url) & set(" \"'\\?#"):
        raise ConfigError(f"base URL {url[:80]!r} must be http(s)://HOST[:PORT], without more")


def _environment_key(key_file: Path | None) -> str:
    """Return the key from the file, the terminal without echo, or standard input."""
    if key_file is not None:
        given = read_private(key_file, f"--key-file {key_file}")
    elif _typing():
        given = str(typer.prompt("environment key (of the Console, not shown)", hide_input=True))
    else:
        given = sys.stdin.buffer.read(MAX_KEY_BYTES + 1).decode("utf-8", "replace")
    key = given.strip()
    if not key:
        raise ConfigError("the environment key is empty: give --key-file, or the key on stdin")
    if len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("the environment key must be printable ASCII on one line")
    return key


def _webhook_keys(key_file: Path | None) -> str:
    if key_file is not None:
        text = read_private(key_file, f"--webhook-key-file {key_file}")
    elif _typing():
        text = str(
            typer.prompt("webhook key (optional, not shown)", hide_input=True, default="").strip()
        )
    else:
        return ""
    keys_of([(text, str(key_file or "what was typed"))])
    return text


def _prove(environment: str, environment_key: str, base_url: str, *, unproven: bool) -> None:
    # Imported here: loading the SDK takes longer than most verbs do.
    from handiwork.brains.environment_check import prove

    try:
        found = asyncio.run(
            prove(environment_id=environment, environment_key=environment_key, base_url=base_url)
        )
    except BrainUnavailableError as error:
        if not unproven:
            raise BrainUnavailableError(
                f"{error}; nothing was written: check --base-url, or give --unproven"
            ) from None
        marked(False, f"not proven: {error}", "yellow")
        return
    marked(True, f"{base_url} knows {environment}, and the key may serve it")
    marked(True, _queue(found))


def _queue(found: "Proven") -> str:
    if found.depth is None:
        return "the brain does not say what its queue holds"
    told = f"{found.depth} waiting, {found.pending or 0} handed out"
    if found.oldest_queued_at and found.depth:
        told += f", the oldest since {found.oldest_queued_at}"
    if found.workers_polling:
        told += f"; {found.workers_polling} others poll it"
    return f"its queue: {told}"


async def _store(layout: Layout, environment: str, environment_key: str, webhook: str) -> None:
    from handiwork.app import opened_store

    async with opened_store(layout) as store:
        await store.control_secrets.put(ENVIRONMENT_KEY + environment, environment_key)
        if webhook:
            await store.control_secrets.put(WEBHOOK_KEYS, webhook)


def _settings(environment: str, base_url: str, data_dir: Path | None) -> str:
    where = f"\ndata_dir = {json.dumps(str(data_dir.absolute()))}\n" if data_dir else ""
    return TEMPLATE.format(
        data_dir=where, environment_id=json.dumps(environment), base_url=json.dumps(base_url)
    )


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write whole or not at all; a file that came in between stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(text)
        if force:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    except FileExistsError:
        raise ConfigError(f"{path} exists; it came while this ran, and was left alone") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def _tell(output: Path, layout: Layout, *, has_webhook_key: bool) -> None:
    marked(True, f"{output} written; the key is sealed in {layout.root}")
    say(f"start it:     handiwork --config {output} up")
    say(f"look at it:   handiwork --config {output} status")
    if has_webhook_key:
        say("webhook:      its key is stored; the address is https://YOUR-NAME/webhooks")
    else:
        say(
            "webhook:      optional, polling is enough; to have one, register"
            " https://YOUR-NAME/webhooks in the Console and give --webhook-key-file"
        )
