"""Writes docs/reference/settings.md from the settings tree: `.venv/bin/python docs/generate_settings.py`.

The tree gives names, types and defaults; the meanings stand here. A setting without a meaning, or a
meaning without a setting, is an error.
"""

import types
import typing
from pathlib import Path

import msgspec

from handiwork.config import PREFIX, Settings

MEANING = {
    "data_dir": "where state is kept; empty: `/var/lib/handiwork` as root, else `~/.local/share/handiwork`",
    "api.host": "address that the control plane listens on",
    "api.port": "its port; 0: any free one",
    "local_brain.enabled": "whether `up` starts the local brain",
    "local_brain.host": "address that the local brain listens on",
    "local_brain.port": "its port; 0: any free one",
    "local_brain.environment_name": "the environment that it makes at its first start and that we serve",
    "local_brain.webhook_hosts": "hosts that its webhooks may go to directly, http too (an address or a name, without a port); any other goes through the egress proxy, to public https only",
    "local_brain.models.name": "what agents write as their model",
    "local_brain.models.kind": "its wire format: `anthropic` (Messages API) or `openai` (chat completions)",
    "local_brain.models.base_url": "its provider; the local brain sends requests here and nowhere else",
    "local_brain.models.model": "its provider's id; empty: the name (openai: or the only model that is served there)",
    "local_brain.models.context_tokens": "its window; a conversation is shortened before it is full",
    "local_brain.models.max_output_tokens": "its longest answer; at most half of the window",
    "local_brain.models.input_price": "US dollars for a million tokens; without it and the next one cost is unknown",
    "local_brain.models.output_price": "the same of what it writes",
    "local_brain.models.cache_read_price": "the same of what its cache held; left out: the price of input",
    "local_brain.models.cache_write_price": "the same of what its cache took in; left out: the price of input",
    "local_brain.models.key_file": "file with its key alone, readable by us only; empty: it needs none, or `handiwork model add` stored it",
    "environments.id": "the environment whose queue is served",
    "environments.base_url": "the service that holds it",
    "environments.key_file": "file with the environment key alone, readable by us only; empty: the key that `handiwork init` stored",
    "environments.image": "image of its sandboxes; empty: that of `sandbox.image`",
    "environments.tier": "tier of its sandboxes: namespace, gvisor, microvm or isolate",
    "environments.policy": "name of the policy of all its sessions; empty: only an agent's own can permit anything",
    "sandbox.tier": "tier of sandboxes made by hand",
    "sandbox.minimum_tier": "no weaker tier is served, whoever asks: gvisor, then microvm; empty: any",
    "sandbox.image": "root file system; `host`: this machine's /usr, read-only",
    "sandbox.policy": "name of the policy of sandboxes made by hand; empty: nothing leaves",
    "sandbox.first_id": "as root: first of the host ids for sandboxes, 65,536 for each",
    "sandbox.max_sandboxes": "how many may live at once",
    "sandbox.min_free_memory_mib": "with less memory free than this no work is taken up; 0: it is not looked at",
    "sandbox.freeze_seconds": "so long the processes of a resting session's sandbox stand still before they end, and go on with its next message; 0: they end at once",
    "sandbox.freeze_min_free_memory_mib": "with less memory free than this those that stand still are put to sleep",
    "sandbox.woken_seconds": "a session's sandbox that somebody woke while its session rests does so again when nothing was done in it for so long; 0: it stays awake",
    "sandbox.microvm.acceleration": "what runs machines: `kvm`, or `tcg`, an emulated processor, some twenty times slower; never chosen by itself",
    "sandbox.microvm.kernel_dir": "where `boot/vmlinuz-V` and `lib/modules/V` of their kernel are",
    "sandbox.microvm.first_id": "as root: first of the host ids of QEMU, one for each machine",
    "sandbox.isolate.user_id": "as root: the host id of the processes that run code",
    "sandbox.isolate.memory_mib": "memory of one of them, of which a sandbox has one for each language",
    "sandbox.pool.ready": "how many stand ready of `sandbox.tier`, `sandbox.image` and `sandbox.limits` (of the isolate tier: cells of each language), to be claimed in a fraction of the time; 0: none",
    "sandbox.pool.more.tier": "the tier of others that stand ready",
    "sandbox.pool.more.image": "their image; empty: that of `sandbox.image`",
    "sandbox.pool.more.size": "their size: small, standard or large; empty: `sandbox.limits`",
    "sandbox.pool.more.ready": "how many; 256 at most with all others",
    "sandbox.limits.memory_mib": "memory of a sandbox",
    "sandbox.limits.disk_mib": "what a sandbox writes to disk: a limit where `doctor` tells `disk_limit`, softly where it tells `disk_watch`",
    "sandbox.limits.pids": "processes and threads of a sandbox",
    "sandbox.limits.cpu_percent": "processor time; 100 is one core",
    "sandbox.limits.tmp_mib": "size of /tmp; /dev/shm has 64 MiB always",
    "sandbox.limits.open_files": "open files of a process",
    "sandbox.limits.file_size_mib": "size of one file",
    "sandbox.limits.disk_read_mib_per_second": "read of a sandbox's disk, where `doctor` tells `disk_read_rate`, else no sandbox is made; none: as much as the host's disk gives",
    "sandbox.limits.disk_write_mib_per_second": "written to it, where `doctor` tells `disk_write_rate`, else no sandbox is made",
    "images.debian_mirror": "mirror that recipes are built from; empty: where this host's own apt gets its packages",
    "images.build_network": "network of the steps of a Dockerfile: `none`, or `host` for this host's own, past the proxy",
    "images.build_seconds": "time that one build or import gets",
    "gvisor.runsc": "gVisor's program; empty: looked for in /usr/local/bin, /usr/bin, /usr/local/sbin, /opt/gvisor",
    "gvisor.platform": "how it runs guests; empty: the first of systrap, ptrace and kvm that works here",
    "snapshots.enabled": "whether snapshots are taken; without them a sandbox's files are on this host alone",
    "snapshots.directory": "where they are kept; empty: `snapshots` in the data directory; not used where `snapshots.s3.bucket` is set",
    "snapshots.on_idle": "one whenever a sandbox is put to sleep, also when the control plane stops",
    "snapshots.after_calls": "one after each tool call that may have written, with the sandbox frozen meanwhile",
    "snapshots.keep": "how many of a sandbox stay, beside pinned ones",
    "snapshots.closed_seconds": "a last one is taken before a sandbox is closed, and all stay so long after; 0: they go with it",
    "snapshots.grace_seconds": "data that no snapshot uses is deleted so long after that was seen first",
    "snapshots.sweep_seconds": "so often it is looked for what may go",
    "snapshots.stop_seconds": "time that snapshots get to end when the control plane stops; what is not done is taken at the next sleep",
    "snapshots.s3.bucket": "bucket on S3 or what speaks its protocol; empty: the directory",
    "snapshots.s3.prefix": "what all names in it begin with",
    "snapshots.s3.endpoint": "its service's URL; empty: Amazon's",
    "snapshots.s3.region": "its region",
    "snapshots.s3.access_key_id": "id of the key",
    "snapshots.s3.secret_key_file": "file with the secret key alone, readable by us only",
    "snapshots.s3.timeout_seconds": "time of one request, and of its repetitions together",
    "sessions.drain_seconds": "after SIGTERM running calls get so long to end; a second SIGTERM ends them at once",
    "sessions.polls_per_minute": "polls of all environments together; Anthropic's limit is 1,200 reads a minute",
    "sessions.ask_seconds": "so often the brain is asked whether a resting session is over, whose files are then deleted; 0: never",
    "sessions.max_sessions": "how many are served at once",
    "sessions.parallel_calls": "how many tool calls of one session run at once",
    "sessions.idle_seconds": "a session with nothing to do sleeps after this",
    "sessions.lease_seconds": "lease asked of the brain; after a crash a session waits so long for its next owner",
    "sessions.stop_seconds": "time that sessions get to end when the control plane stops",
    "tools.default_timeout_seconds": "time of a tool call, unless its tool or the call sets another",
    "tools.longest_timeout_seconds": "the most that a call of `bash` may ask for with `timeout_ms`",
    "tools.timeout_seconds": "table of limits by tool name, stock or custom: `[tools.timeout_seconds]`, then `bash = 600`",
    "tools.background_jobs": "background jobs that one session may have running",
    "tools.spool_mib": "kept of the output of one call, or of one background job, in the sandbox under `/workspace/.tool-output`",
    "staging.git_hosts": "hosts whose git repositories a session's metadata may name; exact names",
    "staging.git_seconds": "time that one clone gets",
    "staging.files_dir": "directory of files that a session's metadata may name, by file name; empty: none",
    "egress.policy": "name of the policy over all others; empty: it abstains",
    "egress.connect_timeout_seconds": "time to reach an upstream",
    "egress.idle_timeout_seconds": "a connection without a byte is closed after this",
    "webhooks.key_files": "files with the signing keys of webhooks, one a line, readable by us only; several while a key is changed",
    "client.url": "control plane that the command line asks; empty: the unix socket of the data directory",
    "client.key_file": "file with the admin key alone; needed with `url`",
    "process.egress_id": "as root: user and group id of the egress proxy",
    "hooks.enabled": "whether `up` starts the process that runs hooks",
    "hooks.directory": "where hooks are, one file each; empty: `hooks` in `data_dir`; as root, `process.hooks_id` must be able to read it",
    "hooks.policy": "name of the policy of the requests that hooks make themselves; empty: they reach nothing",
    "hooks.call_seconds": "a hook that takes longer is stopped and its request refused",
    "hooks.memory_mib": "address space of their process",
    "process.hooks_id": "as root: user and group id of the hooks' process",
    "process.brain_id": "as root: user and group id of the local brain",
    "log.level": "debug, info, warning or error",
    "log.format": "json or text",
}

LISTS = ("environments", "local_brain.models", "sandbox.pool.more")
"""Sections of which there may be several."""

_HEAD = f"""# Settings

One file, `handiwork.toml`, given with `--config` or named by `{PREFIX}CONFIG`. Every key may be left out; a key that
is not here is an error. A variable overrides the file. This page is written by `docs/generate_settings.py`.
"""


class _Row(typing.NamedTuple):
    key: str
    kind: str
    default: str
    variable: str


def page() -> str:
    """Return the whole page."""
    rows = list(_rows(Settings, ""))
    odd = {row.key for row in rows} ^ set(MEANING)
    if odd:
        raise SystemExit(f"setting without meaning, or meaning without setting: {sorted(odd)}")
    sections: dict[str, list[_Row]] = {}
    for row in rows:
        sections.setdefault(row.key.rpartition(".")[0], []).append(row)
    return "\n".join([_HEAD, *(_section(name, held) for name, held in sections.items())])


def _section(name: str, rows: list[_Row]) -> str:
    brackets = "[[{}]]" if name in LISTS else "[{}]"
    title = f"`{brackets.format(name)}`" if name else "At the top"
    lines = [
        f"## {title}",
        "",
        "| key | meaning | type | default | variable |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        key = row.key.rpartition(".")[2]
        lines.append(
            f"| `{key}` | {MEANING[row.key]} | {row.kind} | {row.default} | {row.variable} |"
        )
    return "\n".join([*lines, ""])


def _rows(tree: type[msgspec.Struct], prefix: str) -> typing.Iterator[_Row]:
    """Yield each setting, a tree's own before those of its parts."""
    parts = []
    for field in msgspec.structs.fields(tree):
        part = _part(field.type)
        if part is None:
            yield _Row(
                prefix + field.name,
                _kind(field.type),
                _default(field),
                _variable(prefix, field),
            )
        else:
            parts.append((part, f"{prefix}{field.name}."))
    for part, name in parts:
        yield from _rows(part, name)


def _part(kind: object) -> type[msgspec.Struct] | None:
    """Return the struct that a field holds, once or in a list."""
    for held in (kind, *typing.get_args(kind)):
        if isinstance(held, type) and issubclass(held, msgspec.Struct):
            return held
    return None


def _kind(kind: object) -> str:
    if typing.get_origin(kind) is tuple:
        return f"list of {_kind(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is typing.Annotated:
        return _kind(typing.get_args(kind)[0])
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(str(each) for each in typing.get_args(kind))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_kind(each) for each in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    default = {} if field.default_factory is dict else field.default
    text = msgspec.json.encode(default).decode()
    return "empty" if text in ('""', "{}") else f"`{text}`"


def _variable(prefix: str, field: msgspec.structs.FieldInfo) -> str:
    """Return the variable: sections at the top have some, parts of parts, lists and tables have none."""
    has_parts = typing.get_origin(field.type) in (tuple, dict)
    if prefix.count(".") > 1 or prefix == "environments." or has_parts:
        return "none"
    return f"`{PREFIX}{(prefix + field.name).replace('.', '_').upper()}`"


if __name__ == "__main__":
    Path(__file__).with_name("reference").joinpath("settings.md").write_text(page())
