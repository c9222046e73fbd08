"""Promise 1: every credential that exists is looked for in every place of a sandbox that serves.

The content of a place is streamed out and searched outside, so that the search plants nothing. Each
place holds a canary, planted first: a search counts only when it finds that. Left out is /usr, the
host's own and read-only.
"""

import asyncio
import base64
import contextlib
import json
import math
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anthropic
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brain_process import call, script
from control_plane_process import ControlPlane, running
from handiwork import Handiwork
from handiwork.brains.conversation import Conversation, conversation
from handiwork.brains.local.keys import Keyring
from handiwork.cli.demo import story, upstream
from handiwork.client.sandboxes import Sandbox
from handiwork.egress.ca import Authority
from handiwork.egress.secrets import Opener
from handiwork.model.policy import parse_policy
from handiwork.model.session import Session
from handiwork.store.layout import Layout
from handiwork.store.sqlite import open_sqlite_store
from process_tree import Process, descendants
from uppers import kept_bytes, upper

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

CONFIG = "[sessions]\nidle_seconds = 300.0\n"
EPOCHS = 20
"""Leases of one work item that the session may have had."""
CHUNK_BYTES = 1024 * 1024
OUTPUT_BYTES = 64 * 1024 * 1024

# Runs inside; writes what it reads to standard output, and what it read of to standard error.
LOOK = r"""
import os, stat, sys
out = sys.stdout.buffer
def copy(path, limit=1 << 27):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return
    try:
        while limit > 0 and (piece := os.read(fd, 1 << 16)):
            limit -= len(piece)
            out.write(piece)
        sys.stderr.write(path + "\n")
    except OSError:
        pass
    finally:
        os.close(fd)
def pids():
    return [name for name in os.listdir("/proc") if name.isdigit()]
def tree():
    for top, folders, names in os.walk("/", followlinks=False):
        if top == "/":
            folders[:] = [name for name in folders if name not in ("usr", "proc", "sys")]
        out.write(os.fsencode("\n".join([top, *folders, *names])))
        for name in names:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode): copy(path)
            elif stat.S_ISLNK(mode): out.write(os.fsencode(os.readlink(path)))
def process(kinds):
    for pid in pids():
        for kind in kinds: copy(f"/proc/{pid}/{kind}")
def kernel():
    never = ("kcore", "kmsg", "kpagecount", "kpageflags", "kpagecgroup", "sysrq-trigger")
    large = ("mem", "pagemap", "smaps", "clear_refs")
    for name in os.listdir("/proc"):
        if name not in never and os.path.isfile("/proc/" + name): copy("/proc/" + name, 1 << 20)
    for pid in pids():
        for top, folders, names in os.walk(f"/proc/{pid}"):
            folders[:] = [n for n in folders if n not in ("root", "cwd", "fd", "map_files")]
            for name in names:
                if name not in large: copy(os.path.join(top, name), 1 << 20)
def descriptors():
    for pid in pids():
        try: numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError: continue
        for number in numbers:
            path = f"/proc/{pid}/fd/{number}"
            try:
                out.write(os.fsencode(os.readlink(path) + "\n"))
                if stat.S_ISREG(os.stat(path).st_mode): copy(path)
            except OSError: pass
def memory():
    for pid in pids():
        try:
            maps = open(f"/proc/{pid}/maps").read().splitlines()
            mem = open(f"/proc/{pid}/mem", "rb", 0)
        except OSError: continue
        for line in maps:
            where, flags = line.split()[:2]
            at, end = (int(part, 16) for part in where.split("-"))
            while flags[0] == "r" and at < end:
                try: mem.seek(at); piece = mem.read(min(1 << 16, end - at))
                except (OSError, ValueError, OverflowError): break
                out.write(piece); at += len(piece) or end
        sys.stderr.write(open(f"/proc/{pid}/comm").read())
{"tree": tree, "kernel": kernel, "descriptors": descriptors, "memory": memory,
 "environment": lambda: process(["environ"]), "arguments": lambda: process(["cmdline"])}[sys.argv[1]]()
"""

# Runs inside and keeps canaries: one in a file that has no name, one in memory alone.
HOLD = r"""
import os, sys, time
fd = os.open("/tmp/nameless", os.O_CREAT | os.O_RDWR)
os.unlink("/tmp/nameless")
os.write(fd, bytes(b ^ 90 for b in bytes.fromhex(sys.argv[1])))
kept = bytes(b ^ 90 for b in bytes.fromhex(sys.argv[2]))
print("held", flush=True)
time.sleep(1000)
"""


def forms(value: bytes) -> set[bytes]:
    """Return how a value may stand somewhere: raw, in hex, in base64 at any alignment."""
    found = {value, value.hex().encode(), value.hex().upper().encode()}
    for shift in range(3):
        # Only the characters that the neighbours have no part in.
        first, end = math.ceil(shift * 8 / 6), (shift + len(value)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * shift + value)[first:end])
    return found


class Search:
    """Looks for values in streams."""

    def __init__(self, wanted: Mapping[str, bytes]) -> None:
        assert all(len(value) >= 12 for value in wanted.values())
        self._forms = [(form, name) for name, value in wanted.items() for form in forms(value)]
        self._overlap = max(len(form) for form, _ in self._forms) - 1

    def stream(self) -> "Stream":
        """Begin one stream."""
        return Stream(self._forms, self._overlap)


@dataclass
class Stream:
    """What was found in one stream so far; pieces may cut a value anywhere."""

    forms: list[tuple[bytes, str]]
    overlap: int
    found: set[str] = field(default_factory=set)
    size: int = 0
    _held: bytes = b""

    def feed(self, piece: bytes) -> None:
        self._held += piece
        self.size += len(piece)
        if len(self._held) > CHUNK_BYTES:
            self._look()

    def end(self) -> set[str]:
        self._look()
        return self.found

    def _look(self) -> None:
        self.found |= {name for form, name in self.forms if form in self._held}
        self._held = self._held[-self.overlap :]


@dataclass
class Stage:
    """A control plane with one session and one sandbox of the API, and its secret in use."""

    plane: ControlPlane
    hands: Handiwork
    talk: Conversation
    session: Session
    boxes: dict[str, Sandbox]
    key: str = field(repr=False)


def test_the_search_finds_every_form_wherever_it_is_cut() -> None:
    value = secrets.token_bytes(32)
    search = Search({"value": value})
    for shift in range(3):
        around = b"x" * shift + value + b"yz"
        for shown in (around, around.hex().encode(), base64.b64encode(around)):
            for cut in range(0, len(shown), 5):
                stream = search.stream()
                for piece in (b"." * CHUNK_BYTES, shown[:cut], shown[cut:] + b"." * CHUNK_BYTES):
                    stream.feed(piece)
                assert stream.end() == {"value"}
    other = search.stream()
    other.feed(secrets.token_bytes(CHUNK_BYTES))
    assert other.end() == set()


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    key = f"sk-egress-{secrets.token_hex(24)}"
    names = (story.API_HOST, story.EVIL_HOST)
    with running(folder, config=CONFIG) as plane:
        async with (
            upstream.running(names, key, datetime.now(UTC)) as world,
            Handiwork(socket=plane.socket) as hands,
            conversation(base_url=plane.addresses["local_brain"], api_key=plane.brain_key) as talk,
        ):
            await hands.secrets.put(story.SECRET_NAME, key, hosts=[story.API_HOST])
            policy = story.policy(world.port, world.trust_anchor)
            await hands.policies.put(parse_policy(json.dumps(policy), format="json"))
            session = await served(plane, hands, talk)
            boxes = {
                "session": await hands.sandboxes.get(session.sandbox_id),
                "api": await hands.sandboxes.create(policy=story.POLICY_NAME),
            }
            asked = await boxes["api"].exec(CURL)
            assert b"HTTP 200" in asked.stdout, asked
            assert world.keys_right == 2, "the secret was not in use"
            yield Stage(plane, hands, talk, session, boxes, key)


CURL = f"curl -sS --max-time 20 -w 'HTTP %{{http_code}}' https://{story.API_HOST}/v1/orders"


async def served(plane: ControlPlane, hands: Handiwork, talk: Conversation) -> Session:
    """Return a session whose agent used the secret, and whose shell still runs."""
    steps = [call("bash", command=CURL), {"say": "${result}"}]
    agent = await talk.make_agent("a", model="scripted", system=script(*steps))
    await hands.agents.put(agent, policy=story.POLICY_NAME)
    environment = plane.addresses["environment_id"]
    session = await talk.make_session(agent, environment, title="t")
    async with talk.following(session) as happenings:
        await talk.say(session, "go")
        async for happening in happenings:
            if happening.stop_reason == "end_turn":
                return await hands.sessions.get(session)
    raise AssertionError("the turn did not end")


async def credentials(stage: Stage, copy: Path) -> dict[str, bytes]:
    """Return every credential that exists: of the control plane, the brain, the proxy, the user."""
    layout = Layout(stage.plane.data)
    found = {
        "the egress secret": stage.key.encode(),
        "the admin key": stage.plane.admin_key.encode(),
        "the key of control secrets": layout.control_key.read_bytes(),
        "the local brain's API key": stage.plane.brain_key.encode(),
        "the environment key": await environment_key(layout, copy),
    }
    keyring = Keyring(stage.plane.brain_key, {})
    issued = 0
    for epoch in range(EPOCHS):
        token = keyring._sessions_token(stage.session.work_id, epoch)
        issued += await opens(stage, token)
        found[f"the session's key {epoch}"] = token.encode()
        found[f"the seal of the session's key {epoch}"] = bytes.fromhex(token.rpartition(".")[2])
    assert issued == 1, "the key that the session is served with is not among them"
    return found | proxy_keys(stage, layout, copy)


async def opens(stage: Stage, token: str) -> bool:
    """Whether the brain takes the key for the session now."""
    url = stage.plane.addresses["local_brain"]
    async with anthropic.AsyncAnthropic(api_key=token, base_url=url, max_retries=0) as client:
        try:
            await client.beta.sessions.retrieve(stage.session.id)
        except anthropic.APIStatusError:
            return False
        return True


async def environment_key(layout: Layout, copy: Path) -> bytes:
    """Read the control plane's database as its root would: a copy, with the key beside it."""
    for path in layout.root.glob("handiwork.db*"):
        shutil.copy(path, copy)
    store = await open_sqlite_store(
        copy / layout.database.name, control_key=layout.control_key.read_bytes()
    )
    try:
        key = await store.control_secrets.get("local-brain-environment-key")
    finally:
        await store.close()
    assert key
    return key.encode()


def proxy_keys(stage: Stage, layout: Layout, copy: Path) -> dict[str, bytes]:
    """Return what the proxy alone may read, and what it makes of that."""
    keys = copy / "keys"
    shutil.copytree(layout.egress / "keys", keys)
    keys.chmod(0o700)
    opener = Opener(keys)
    found = {
        "the proxy's key-encryption key": (keys / "kek").read_bytes(),
        "the wrapped CA root": (keys / "ca-root").read_bytes(),
        "the CA root": opener.ca_root(),
        "the private half of the seal": opener._tenant_key(
            "default", create=False
        ).private_bytes_raw(),
    }
    for name, ca_id in {"session": stage.session.id, "api": stage.boxes["api"].id}.items():
        authority = Authority(opener.ca_root(), ca_id, 1, now=lambda: datetime.now(UTC))
        number = authority._key.private_numbers().private_value
        pem = authority._key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        found[f"the CA key of the {name}"] = number.to_bytes(32, "big")
        found[f"the CA key of the {name}, as PEM"] = pem.splitlines()[1]
    return found


async def look(box: Sandbox, place: str, search: Search) -> tuple[set[str], str]:
    """Search what the sandbox itself can read of a place; also tell what it read of."""
    stream, read = search.stream(), bytearray()
    async with box.exec_stream(
        ["python3", "-c", LOOK, place], output_limit_bytes=OUTPUT_BYTES, timeout_seconds=100
    ) as process:
        async for name, piece in process.output():
            if name == "stdout":
                stream.feed(piece)
            else:
                read += piece
        ended = await process.wait()
    assert (ended.exit_code, ended.truncated) == (0, False), read[-2000:]
    return stream.end(), read.decode()


def memory(pid: int) -> Iterator[bytes]:
    """Yield what the host's root reads of a process's memory."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, flags = line.split()[:2]
            at, end = (int(part, 16) for part in where.split("-"))
            while flags[0] == "r" and at < end:
                try:
                    mem.seek(at)
                    piece = mem.read(min(CHUNK_BYTES, end - at))
                except (OSError, ValueError, OverflowError):
                    break  # of the kernel's own: [vvar], [vsyscall]
                yield piece
                at += len(piece) or end


def outside(pieces: Iterable[bytes], search: Search) -> set[str]:
    stream = search.stream()
    for piece in pieces:
        stream.feed(piece)
    return stream.end()


def process_texts(pid: int) -> Iterator[bytes]:
    """Yield environment, command line and descriptors of a process as the host's root sees them."""
    for name in ("environ", "cmdline", "status", "mountinfo"):
        yield Path(f"/proc/{pid}/{name}").read_bytes()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            yield bytes(descriptor.readlink())
            if descriptor.is_file():
                yield descriptor.read_bytes()


def kept_files(plane: ControlPlane, box: Sandbox) -> Iterator[bytes]:
    """Yield every file that the driver keeps for the sandbox, as they lie on the host."""
    state = plane.data / "sandboxes/sandboxes" / box.id
    with upper(state) as written:
        for path in [*state.rglob("*"), *written.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                yield kept_bytes(path)


async def sandbox_processes(plane: ControlPlane, box: Sandbox) -> list[Process]:
    """Return the launcher, the agent and the guest's processes: the launcher is the first."""
    told = await box.exec(["stat", "-Lc", "%i", "/proc/self/ns/pid"])
    inside = [one for one in descendants(plane.process.pid) if space(one) == int(told.stdout)]
    above = [one for one in descendants(plane.process.pid) if one not in inside]
    (launcher,) = [
        one for one in above if set(inside) & set(descendants(one.pid)) and "launch" in one.command
    ]
    return [launcher, *descendants(launcher.pid)]


def space(one: Process) -> int:
    """Return the number of its process namespace; 0 when it is gone."""
    try:
        return Path(f"/proc/{one.pid}/ns/pid").stat().st_ino
    except OSError:
        return 0


PLANTED = ("/workspace", "/home", "/tmp", "/dev/shm", "/etc", "/var/tmp", "/root")


@contextlib.asynccontextmanager
async def planted(box: Sandbox) -> AsyncIterator[dict[str, bytes]]:
    """Plant a canary in each place and yield them by place; they stand while the body runs."""
    canaries = {
        place: f"canary-{secrets.token_hex(12)}".encode()
        for place in ("environment", "arguments", "descriptors", "memory", *PLANTED)
    }
    hidden = [bytes(b ^ 90 for b in canaries[name]).hex() for name in ("descriptors", "memory")]
    for number, folder in enumerate(PLANTED):
        canary = b"x" * number + canaries[folder]
        shown = (canary, canary.hex().encode(), base64.b64encode(canary))[number % 3]
        await box.files.write(f"{folder}/notes", shown)
    async with box.exec_stream(
        ["python3", "-c", HOLD, *hidden, canaries["arguments"].decode()],
        env={"PLANTED": canaries["environment"].decode()},
        timeout_seconds=200,
    ) as holding:
        async for _, piece in holding.output():
            assert piece == b"held\n"
            break
        yield canaries


async def check_inside(box: Sandbox, search: Search, canaries: dict[str, bytes]) -> None:
    """Search all that root inside can read. Nothing but canaries is to be found."""
    expected = {
        "environment": {"environment"},
        "arguments": {"arguments"},
        "kernel": {"environment", "arguments"},
        "descriptors": {"descriptors"},
        "memory": {"memory", "environment", "arguments"},
        "tree": set(PLANTED),
    }
    for place, planted_there in expected.items():
        found, read = await look(box, place, search)
        assert planted_there <= found, f"the search of {place} is blind"
        assert found <= set(canaries), f"in {place}: {found - set(canaries)}"
        if place == "memory":
            assert "python3" in read


def check_outside(
    stage: Stage,
    box: Sandbox,
    processes: list[Process],
    search: Search,
    canaries: dict[str, bytes],
) -> None:
    """Search launcher, agent and guests as the host's root, who may read all of them."""
    everywhere: set[str] = set()
    for one in processes:
        found = outside(memory(one.pid), search) | outside(process_texts(one.pid), search)
        assert found <= set(canaries), f"in {one.command}: {found - set(canaries)}"
        everywhere |= found
    assert {"memory", "environment", "arguments", "descriptors"} <= everywhere
    launcher, agent = processes[:2]
    place = Search({"place": str(stage.plane.data / "sandboxes").encode()})
    assert outside(memory(launcher.pid), place) == {"place"}
    assert outside(memory(agent.pid), search) & set(PLANTED), "files went through the agent"
    kept = outside(kept_files(stage.plane, box), search)
    assert {"/workspace", "/home", "/etc"} <= kept
    assert kept <= set(canaries)


async def test_no_credential_is_in_a_sandbox(tmp_path: Path) -> None:
    async with staged(tmp_path / "plane") as stage:
        wanted = await credentials(stage, tmp_path)
        assert len(wanted) == len(set(wanted.values()))
        for box in stage.boxes.values():
            async with planted(box) as canaries:
                search = Search(wanted | canaries)
                await check_inside(box, search, canaries)
                processes = await sandbox_processes(stage.plane, box)
                await asyncio.to_thread(check_outside, stage, box, processes, search, canaries)


async def test_a_credential_inside_is_found(tmp_path: Path) -> None:
    """The sabotage: each credential, planted as a file, is told by its name."""
    async with staged(tmp_path / "plane") as stage:
        wanted = await credentials(stage, tmp_path)
        box = stage.boxes["session"]
        for name, value in wanted.items():
            await box.files.write(f"/home/{secrets.token_hex(8)}", value)
            assert name
        found, _ = await look(box, "tree", Search(wanted))
        assert found == set(wanted)
