"""One typed settings tree: `handiwork.toml`, overridden by `HANDIWORK_SECTION_KEY` variables.

An unknown key is an error that names it. Every default is safe: loopback, deny, small. This is the
only module that reads the environment.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.model.language_model import ModelSettings
from handiwork.model.sandbox import TIERS, Limits, is_weaker, limits_of

PREFIX = "HANDIWORK_"

POOLED_TIERS = ("namespace", "gvisor", "microvm", "isolate")
MOST_POOLED = 256
"""Sandboxes that stand ready, all together."""
MAX_GENERATIONS = 1000
"""Of one sandbox's snapshots, beside pinned ones."""

LONGEST_SECONDS = 7 * 86_400.0
"""No timeout of a tool is longer."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the tree."""


class ApiSettings(Section, frozen=True, kw_only=True):
    """Where the control plane listens."""

    host: str = "127.0.0.1"
    port: int = 8787


class BrainModelSettings(ModelSettings, frozen=True, kw_only=True):
    """One model of the local brain; `key_file` holds its key, alone, readable by us only."""

    key_file: str = ""


class LocalBrainSettings(Section, frozen=True, kw_only=True):
    """The CMA-compatible server that we can run ourselves.

    Its webhooks leave through the egress proxy, but for `webhook_hosts`, which are called directly.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 8788
    environment_name: str = "local"
    webhook_hosts: tuple[str, ...] = ()
    models: tuple[BrainModelSettings, ...] = ()


class EnvironmentSettings(Section, frozen=True, kw_only=True):
    """One environment of a brain whose queue we serve.

    `key_file` holds the environment key, alone, readable by us only; without it the key is the
    control secret `environment-key/ID`, which `handiwork init` writes. `policy` names a policy in
    the store; absent, only an agent's own policy can permit anything.
    """

    id: str
    base_url: str = "https://api.anthropic.com"
    key_file: str = ""
    tier: str = "namespace"
    image: str = ""
    policy: str = ""


class MicrovmSettings(Section, frozen=True, kw_only=True):
    """Sandboxes in virtual machines. `kernel_dir` holds `boot/vmlinuz-V` and `lib/modules/V`.

    `acceleration` is kvm, or tcg: an emulated processor, some twenty times slower, for tests.
    `first_id` starts the host ids of QEMU in root mode, one for each sandbox.
    """

    acceleration: Literal["kvm", "tcg"] = "kvm"
    kernel_dir: str = "/"
    first_id: int = 3 << 29


class IsolateSettings(Section, frozen=True, kw_only=True):
    """Sandboxes that run code in cells, which are processes of ours.

    `user_id` is the host id of all cells in root mode; `memory_mib` is the most that one may use.
    """

    user_id: int = 64103
    memory_mib: int = 128


class PooledSettings(Section, frozen=True, kw_only=True):
    """Sandboxes of one kind that stand ready.

    Empty image and size: `sandbox.image` and `sandbox.limits`.
    """

    tier: str = "namespace"
    image: str = ""
    size: str = ""
    ready: int = 1


class PoolSettings(Section, frozen=True, kw_only=True):
    """Sandboxes that are made before they are wanted, and claimed in a fraction of the time.

    `ready` of them are of `sandbox.tier`, `sandbox.image` and `sandbox.limits`; `more` names others.
    """

    ready: int = 2
    more: tuple[PooledSettings, ...] = ()


class SandboxSettings(Section, frozen=True, kw_only=True):
    """What sandboxes get. A tier weaker than `minimum_tier` is refused, whoever asks for it.

    `first_id` starts the host ids of root mode, 65,536 for each sandbox. `freeze_seconds`: so long the
    processes of one whose session rests stand still before they end, while that much memory is free.
    `woken_seconds`: one that was woken while its session rests does so again after so long without use.
    """

    tier: str = "namespace"
    minimum_tier: str = ""
    image: str = "host"
    policy: str = ""
    first_id: int = 1 << 30
    max_sandboxes: int = 64
    min_free_memory_mib: int = 256
    freeze_seconds: float = 0.0
    freeze_min_free_memory_mib: int = 2048
    woken_seconds: float = 600.0
    limits: Limits = msgspec.field(default_factory=Limits)
    microvm: MicrovmSettings = msgspec.field(default_factory=MicrovmSettings)
    isolate: IsolateSettings = msgspec.field(default_factory=IsolateSettings)
    pool: PoolSettings = msgspec.field(default_factory=PoolSettings)


class ImageSettings(Section, frozen=True, kw_only=True):
    """Where images come from. `debian_mirror` empty: where this host's own apt gets its packages.

    `build_network`: whether the steps of a Dockerfile have no network, or this host's own, past the
    proxy. It is the operator's to say, never that of who asks for a build.
    """

    debian_mirror: str = ""
    build_network: Literal["none", "host"] = "none"
    build_seconds: float = 3600.0


class GvisorSettings(Section, frozen=True, kw_only=True):
    """The gvisor tier. `runsc` empty: it is looked for in the usual places.

    `platform` empty: the first of systrap, ptrace and kvm that runs a sandbox here.
    """

    runsc: str = ""
    platform: Literal["", "systrap", "ptrace", "kvm"] = ""


class SnapshotS3Settings(Section, frozen=True, kw_only=True):
    """A bucket for snapshots. `endpoint` empty: Amazon's; `secret_key_file` holds the key alone."""

    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_key_file: str = ""
    timeout_seconds: float = 60.0


class SnapshotSettings(Section, frozen=True, kw_only=True):
    """State of sandboxes kept beside them: where, when, and how much of it.

    `directory` empty: `snapshots` in the data directory; it is not used where a bucket is named.
    `keep` generations of each sandbox stay, beside pinned ones. `closed_seconds`: so long are they
    kept after their sandbox was closed, and a last one is taken before; 0: they go with it.
    `grace_seconds`: so long must a pack have been unused before it is deleted.
    """

    enabled: bool = True
    directory: str = ""
    s3: SnapshotS3Settings = msgspec.field(default_factory=SnapshotS3Settings)
    on_idle: bool = True
    after_calls: bool = False
    keep: int = 8
    closed_seconds: float = 0.0
    grace_seconds: float = 3600.0
    sweep_seconds: float = 900.0
    stop_seconds: float = 20.0


class SessionSettings(Section, frozen=True, kw_only=True):
    """How sessions are served. An idle session sleeps after `idle_seconds`.

    `lease_seconds` is asked of the brain: after a crash of ours a session waits as long for its
    next owner, and the lease is renewed every half of it, every 30 s at the latest. `ask_seconds`:
    so often the brain is asked whether a resting session is over; 0: never.
    """

    max_sessions: int = 32
    parallel_calls: int = 8
    idle_seconds: float = 60.0
    lease_seconds: int = 60
    stop_seconds: float = 10.0
    drain_seconds: float = 30.0
    polls_per_minute: int = 300
    ask_seconds: float = 3600.0


class ToolSettings(Section, frozen=True, kw_only=True):
    """Limits of tool calls.

    `timeout_seconds` holds a tool's own limit by its name, for those that differ from the default.
    `longest_timeout_seconds` bounds what a call of `bash` may ask for. `spool_mib` is kept of the
    output of one call, or of one background job.
    """

    default_timeout_seconds: float = 120.0
    longest_timeout_seconds: float = 3600.0
    timeout_seconds: dict[str, float] = {}
    spool_mib: int = 64
    background_jobs: int = 8


class StagingSettings(Section, frozen=True, kw_only=True):
    """What a session's metadata may ask to have in its workspace. Empty lists mean nothing.

    `git_hosts` are exact names; the egress policy must permit what git fetches as well. Whoever may
    create a session may name any file of `files_dir`.
    """

    git_hosts: tuple[str, ...] = ()
    git_seconds: float = 300.0
    files_dir: str = ""


class EgressSettings(Section, frozen=True, kw_only=True):
    """The proxy. `policy` is the global layer."""

    policy: str = ""
    connect_timeout_seconds: float = 10.0
    idle_timeout_seconds: float = 300.0


class HooksSettings(Section, frozen=True, kw_only=True):
    """Python of the operator's that requests pass where a rule says so.

    `directory` empty: `hooks` in the data directory. `policy` is what hooks themselves may reach;
    empty: nothing. `memory_mib` bounds the address space of their process.
    """

    enabled: bool = False
    directory: str = ""
    policy: str = ""
    call_seconds: float = 2.0
    memory_mib: int = 512


class ProcessSettings(Section, frozen=True, kw_only=True):
    """Host ids of our own processes when started as root."""

    egress_id: int = 64101
    brain_id: int = 64102
    hooks_id: int = 64104


class WebhookSettings(Section, frozen=True, kw_only=True):
    """Webhooks in. Each file holds signing keys, one a line, readable by us only.

    A key that `handiwork init` stored counts beside them; a delivery is taken when any of them
    signed it, so that a key can be changed without a gap.
    """

    key_files: tuple[str, ...] = ()


class ClientSettings(Section, frozen=True, kw_only=True):
    """How the CLI reaches a control plane. `url` empty: the unix socket of the data directory.

    `key_file` holds the admin key, alone; it is needed with `url`.
    """

    url: str = ""
    key_file: str = ""


class LogSettings(Section, frozen=True, kw_only=True):
    """`level`: debug, info, warning or error. `format`: json or text."""

    level: str = "info"
    format: str = "json"


class Settings(Section, frozen=True, kw_only=True):
    """The whole tree. `data_dir` empty: `/var/lib/handiwork` as root, else under the home directory."""

    data_dir: str = ""
    api: ApiSettings = msgspec.field(default_factory=ApiSettings)
    local_brain: LocalBrainSettings = msgspec.field(default_factory=LocalBrainSettings)
    environments: tuple[EnvironmentSettings, ...] = ()
    sandbox: SandboxSettings = msgspec.field(default_factory=SandboxSettings)
    images: ImageSettings = msgspec.field(default_factory=ImageSettings)
    gvisor: GvisorSettings = msgspec.field(default_factory=GvisorSettings)
    snapshots: SnapshotSettings = msgspec.field(default_factory=SnapshotSettings)
    sessions: SessionSettings = msgspec.field(default_factory=SessionSettings)
    tools: ToolSettings = msgspec.field(default_factory=ToolSettings)
    staging: StagingSettings = msgspec.field(default_factory=StagingSettings)
    egress: EgressSettings = msgspec.field(default_factory=EgressSettings)
    hooks: HooksSettings = msgspec.field(default_factory=HooksSettings)
    process: ProcessSettings = msgspec.field(default_factory=ProcessSettings)
    webhooks: WebhookSettings = msgspec.field(default_factory=WebhookSettings)
    client: ClientSettings = msgspec.field(default_factory=ClientSettings)
    log: LogSettings = msgspec.field(default_factory=LogSettings)


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the file (if it is given or named by HANDIWORK_CONFIG), apply overrides, check.

    ConfigError says which key of which file is wrong.
    """
    variables = os.environ if environ is None else environ
    named = path or (Path(variables[PREFIX + "CONFIG"]) if PREFIX + "CONFIG" in variables else None)
    tree = _read(named) if named else {}
    _override(tree, variables)
    where = str(named) if named else "the environment's HANDIWORK_ variables"
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    return _checked(settings, where)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: not a table")
    return tree


def _override(tree: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Set `section.key` from HANDIWORK_SECTION_KEY for the sections and keys that exist."""
    for name, value in variables.items():
        if not name.startswith(PREFIX) or name == PREFIX + "CONFIG":
            continue
        rest = name.removeprefix(PREFIX).lower()
        section, key = _split(rest, name)
        target = tree.setdefault(section, {}) if section else tree
        target[key] = value


def _split(rest: str, name: str) -> tuple[str, str]:
    for field in msgspec.structs.fields(Settings):
        if rest == field.name and not _is_section(field.type):
            return "", rest
        if _is_section(field.type) and rest.startswith(field.name + "_"):
            return field.name, rest.removeprefix(field.name + "_")
    raise ConfigError(f"the variable {name} names no setting; see docs/reference/settings.md")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _check_tiers(settings: Settings, where: str) -> None:
    minimum = settings.sandbox.minimum_tier
    if minimum and minimum not in TIERS:
        raise ConfigError(f"{where}: sandbox.minimum_tier = {minimum!r} is no tier")
    for key, tier in [
        ("sandbox.tier", settings.sandbox.tier),
        *((f"environments[{e.id}].tier", e.tier) for e in settings.environments),
    ]:
        if tier not in TIERS:
            raise ConfigError(
                f"{where}: {key} = {tier!r} is no tier; use one of {', '.join(TIERS)}"
            )
        if is_weaker(tier, minimum):
            raise ConfigError(
                f"{where}: {key} = {tier!r} is weaker than sandbox.minimum_tier = {minimum!r}"
            )


def _check_pool(settings: SandboxSettings, where: str) -> None:
    for number, one in enumerate(settings.pool.more, 1):
        key = f"sandbox.pool.more {number}"
        if one.tier not in POOLED_TIERS:
            raise ConfigError(
                f"{where}: {key}: tier = {one.tier!r} has no pool; use {' or '.join(POOLED_TIERS)}"
            )
        if is_weaker(one.tier, settings.minimum_tier):
            raise ConfigError(f"{where}: {key} is weaker than sandbox.minimum_tier")
        try:
            limits_of(one.size, None)
        except ConfigError as error:
            raise ConfigError(f"{where}: {key}: {error}") from None
    counts = [settings.pool.ready, *(one.ready for one in settings.pool.more)]
    if min(counts) < 0 or sum(counts) > MOST_POOLED:
        raise ConfigError(
            f"{where}: sandbox.pool: ready = {counts}; use 0 or more, {MOST_POOLED} all together"
        )


def _check_isolate(settings: IsolateSettings, where: str) -> None:
    if not 16 <= settings.memory_mib <= 4096:
        raise ConfigError(
            f"{where}: sandbox.isolate.memory_mib = {settings.memory_mib}; use 16 to 4096"
        )
    if not 1 <= settings.user_id < 1 << 31:
        raise ConfigError(
            f"{where}: sandbox.isolate.user_id = {settings.user_id}; use an id that nobody has, not 0"
        )


def _checked(settings: Settings, where: str) -> Settings:
    _check_tiers(settings, where)
    _check_pool(settings.sandbox, where)
    _check_isolate(settings.sandbox.isolate, where)
    _check_freezing(settings.sandbox, where)
    ids = [one.id for one in settings.environments]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        # The policy of one of them would hold for both.
        raise ConfigError(f"{where}: environments has {twice[0]!r} twice; an id is one environment")
    if not 0 <= settings.sessions.ask_seconds <= LONGEST_SECONDS:
        raise ConfigError(
            f"{where}: sessions.ask_seconds = {settings.sessions.ask_seconds};"
            " use 0 (never) or seconds up to a week"
        )
    if settings.sessions.parallel_calls < 1:
        raise ConfigError(f"{where}: sessions.parallel_calls must be at least 1")
    for port in (settings.api.port, settings.local_brain.port):
        if not 0 <= port <= 65535:
            raise ConfigError(f"{where}: {port} is no port; use 1-65535 (0: any free one)")
    if settings.sessions.polls_per_minute < 1:
        raise ConfigError(
            f"{where}: sessions.polls_per_minute = {settings.sessions.polls_per_minute};"
            " use 1 or more, Anthropic's service allows 1200"
        )
    if settings.log.level not in ("debug", "info", "warning", "error"):
        raise ConfigError(
            f"{where}: log.level = {settings.log.level!r}; use debug, info, warning or error"
        )
    _check_tools(settings.tools, where)
    _check_hooks(settings.hooks, where)
    _check_snapshots(settings.snapshots, where)
    return settings


def _check_freezing(sandbox: SandboxSettings, where: str) -> None:
    if not 0 <= sandbox.freeze_seconds <= LONGEST_SECONDS:
        raise ConfigError(
            f"{where}: sandbox.freeze_seconds = {sandbox.freeze_seconds};"
            " use 0 (never) or seconds up to a week"
        )
    if not 0 <= sandbox.woken_seconds <= LONGEST_SECONDS:
        raise ConfigError(
            f"{where}: sandbox.woken_seconds = {sandbox.woken_seconds};"
            " use 0 (it stays awake) or seconds up to a week"
        )
    least = sandbox.min_free_memory_mib
    if sandbox.freeze_seconds and sandbox.freeze_min_free_memory_mib < least:
        raise ConfigError(
            f"{where}: sandbox.freeze_min_free_memory_mib = {sandbox.freeze_min_free_memory_mib} is"
            f" below sandbox.min_free_memory_mib = {least}: who stands still would keep new work out;"
            " raise it"
        )


def _check_hooks(hooks: HooksSettings, where: str) -> None:
    if not 0.05 <= hooks.call_seconds <= 60:
        raise ConfigError(
            f"{where}: hooks.call_seconds = {hooks.call_seconds}; use seconds from 0.05 to 60"
        )
    if not 128 <= hooks.memory_mib <= 65_536:
        raise ConfigError(f"{where}: hooks.memory_mib = {hooks.memory_mib}; use 128 to 65536")
    if hooks.directory and not Path(hooks.directory).is_absolute():
        raise ConfigError(f"{where}: hooks.directory must be an absolute path")


def _check_snapshots(snapshots: SnapshotSettings, where: str) -> None:
    if not 1 <= snapshots.keep <= MAX_GENERATIONS:
        raise ConfigError(
            f"{where}: snapshots.keep = {snapshots.keep}; use 1-{MAX_GENERATIONS},"
            " or snapshots.enabled = false"
        )
    for key in ("closed_seconds", "grace_seconds", "stop_seconds"):
        if getattr(snapshots, key) < 0:
            raise ConfigError(f"{where}: snapshots.{key} must not be negative")
    for key, value in (
        ("sweep_seconds", snapshots.sweep_seconds),
        ("s3.timeout_seconds", snapshots.s3.timeout_seconds),
    ):
        if value <= 0:
            raise ConfigError(f"{where}: snapshots.{key} = {value}; use more than 0")
    place = snapshots.s3
    if place.bucket and not (place.access_key_id and place.secret_key_file):
        raise ConfigError(
            f"{where}: snapshots.s3.bucket needs access_key_id and secret_key_file beside it"
        )


def _check_tools(tools: ToolSettings, where: str) -> None:
    seconds = {
        "default_timeout_seconds": tools.default_timeout_seconds,
        "longest_timeout_seconds": tools.longest_timeout_seconds,
        **{f"timeout_seconds.{name}": value for name, value in tools.timeout_seconds.items()},
    }
    for key, value in seconds.items():
        if not 0 < value <= LONGEST_SECONDS:
            raise ConfigError(f"{where}: tools.{key} = {value}; use seconds from 0.001 to a week")
    for key, count in (("spool_mib", tools.spool_mib), ("background_jobs", tools.background_jobs)):
        if not 1 <= count <= 4096:
            raise ConfigError(f"{where}: tools.{key} = {count}; use 1-4096")


def provider_key(kind: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the key of a provider of models by the variable that its own tools read, or empty."""
    variables = os.environ if environ is None else environ
    return variables.get(f"{kind.upper()}_API_KEY", "").strip()


def data_dir(settings: Settings, *, is_root: bool, home: Path) -> Path:
    """Return where state lives."""
    if settings.data_dir:
        return Path(settings.data_dir).absolute()
    return Path("/var/lib/handiwork") if is_root else home / ".local/share/handiwork"
