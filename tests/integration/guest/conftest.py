"""A bare driver of the guest agent: builds it, launches it, speaks its channel with no code of ours."""

import contextlib
import itertools
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

GUEST = pathlib.Path(__file__).parents[3] / "guest"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ID_BASE = 300_000_000 + 65_536 * WORKER
"""Of each worker's own: the kernel counts processes by the id, in whatever sandbox they are."""
NOBODY = 65534
WINDOW = 262_144
PATH = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ERRNO = {"ENOENT": 2, "EAGAIN": 11, "EACCES": 13, "EEXIST": 17, "EINVAL": 22, "ECANCELED": 125}


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def texts(values):
    return struct.pack("<I", len(values)) + b"".join(map(text, values))


class Ended(Exception):
    """The channel was closed by the agent."""


class Failed(Exception):
    """A request was answered FAILED."""

    def __init__(self, number, what):
        super().__init__(f"{what}: {os.strerror(number)}")
        self.number = number


class Result:
    def __init__(self, code, flags, stdout, stderr, max_rss_kib):
        self.code, self.flags, self.stdout, self.stderr = code, flags, stdout, stderr
        self.max_rss_kib = max_rss_kib

    def __repr__(self):
        return f"Result({self.code}, {self.flags}, {self.stdout[-800:]!r}, {self.stderr[-800:]!r})"


class Channel:
    """Frames over a socket; one thread of the test uses it at a time."""

    def __init__(self, sock):
        self.sock, self.buffer, self.ids = sock, b"", itertools.count(1)
        self.kept = {}

    def send(self, kind, request_id, payload=b""):
        self.sock.sendall(struct.pack("<IIB3x", len(payload), request_id, kind) + payload)

    def frame(self, timeout=20):
        while True:
            if len(self.buffer) >= 12:
                size, request_id, kind = struct.unpack_from("<IIB", self.buffer)
                if len(self.buffer) >= 12 + size:
                    payload, self.buffer = self.buffer[12 : 12 + size], self.buffer[12 + size :]
                    return kind, request_id, payload
            self.sock.settimeout(timeout)
            try:
                more = self.sock.recv(1 << 18)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Ended
            self.buffer += more

    def next_of(self, request_id, timeout=20):
        waiting = self.kept.setdefault(request_id, [])
        if waiting:
            return waiting.pop(0)
        while True:
            kind, frame_id, payload = self.frame(timeout)
            if kind == 76 and frame_id == request_id:
                number, _ = struct.unpack_from("<II", payload)
                raise Failed(number, payload[8:].decode())
            if frame_id == request_id:
                return kind, payload
            self.kept.setdefault(frame_id, []).append((kind, payload))

    def ask(self, kind, payload=b""):
        request_id = next(self.ids)
        self.send(kind, request_id, payload)
        return self.next_of(request_id)

    # commands

    def start(self, argv, *, flags=0, timeout_ms=0, limit=0, uid=0, gid=0, cwd="/", env=(PATH,)):
        request_id = next(self.ids)
        argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
        payload = struct.pack("<IIQII", flags, timeout_ms, limit, uid, gid)
        self.send(1, request_id, payload + text(cwd) + texts(argv) + texts(env))
        return request_id

    def result(self, request_id, timeout=20):
        out = {66: [], 67: []}
        while True:
            kind, payload = self.next_of(request_id, timeout)
            if kind in out:
                out[kind].append(payload)
                self.send(4, request_id, struct.pack("<I", len(payload)))
            elif kind == 68:
                code, flags, _, _, rss = struct.unpack("<iIQQQ", payload)
                return Result(code, flags, b"".join(out[66]), b"".join(out[67]), rss)

    def result_after_credit(self, request_id):
        """The result of a command whose own grants for its input are of no interest any more."""
        waiting = self.kept.get(request_id, [])
        waiting[:] = [frame for frame in waiting if frame[0] != 69]
        return self.result(request_id)

    def run(self, argv, timeout=20, **options):
        return self.result(self.start(argv, **options), timeout)

    # files

    def read(self, path, offset=0, limit=0):
        request_id, data = next(self.ids), []
        self.send(5, request_id, struct.pack("<QQ", offset, limit) + text(path))
        while True:
            kind, payload = self.next_of(request_id)
            if kind == 71:
                assert struct.unpack("<Q", payload)[0] == sum(map(len, data))
                return b"".join(data)
            assert kind == 70
            data.append(payload)
            self.send(4, request_id, struct.pack("<I", len(payload)))

    def write(self, path, data, mode=0o644, flags=0, uid=0, gid=0):
        request_id, window = next(self.ids), WINDOW
        self.send(6, request_id, struct.pack("<IIII", mode, flags, uid, gid) + text(path))
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            while window < len(piece):
                kind, payload = self.next_of(request_id)
                assert kind == 69
                window += struct.unpack("<I", payload)[0]
            self.send(7, request_id, piece)
            window -= len(piece)
        self.send(7, request_id)
        while self.next_of(request_id)[0] != 75:
            pass

    def stat(self, path, follow=False):
        kind, payload = self.ask(8, struct.pack("<I", follow) + text(path))
        assert kind == 72
        names = ("kind", "mode", "size", "mtime_ns", "uid", "gid")
        return dict(zip(names, struct.unpack("<IIQqII", payload), strict=True))

    def list(self, path, limit=100_000):
        request_id, names = next(self.ids), {}
        self.send(9, request_id, struct.pack("<I", limit) + text(path))
        while True:
            kind, payload = self.next_of(request_id)
            if kind == 71:
                assert struct.unpack("<Q", payload)[0] == len(names)
                return names
            while payload:
                kind_of, mode, size, _, _, _, length = struct.unpack_from("<IIQqIII", payload)
                names[payload[36 : 36 + length].decode()] = (kind_of, mode, size)
                payload = payload[36 + length :]

    def mkdir(self, path, mode=0o755, parents=False, uid=0, gid=0):
        return self.ask(10, struct.pack("<IIII", mode, parents, uid, gid) + text(path))

    def remove(self, path, recursive=False):
        return self.ask(11, struct.pack("<I", recursive) + text(path))

    def move(self, source, target):
        return self.ask(12, text(source) + text(target))

    def realpath(self, path):
        return self.ask(13, text(path))[1][4:].decode()


class Box(Channel):
    """A launched sandbox and its directories."""

    def __init__(
        self,
        binary,
        folder,
        *,
        ranged,
        options=(),
        exit_path=None,
        parent=None,
        image_fd=None,
        passed=(),
    ):
        self.folder, self.ranged = folder, ranged
        self.image = make_image(folder)
        state = folder / "state"
        for name in ("upper", "work"):
            (state / name).mkdir(parents=True, exist_ok=True)
        owner = ID_BASE if ranged else NOBODY
        owned = [state, *state.iterdir()]
        owned += [] if ranged else [self.image, *self.image.rglob("*")]
        for path in owned:
            os.chown(path, owner, owner, follow_symlinks=False)
        ours, theirs = socket.socketpair()
        argv = [binary, "launch", "--channel", str(theirs.fileno())]
        argv += ["--root", self.image] if image_fd is None else ["--image-fd", str(image_fd)]
        argv += ["--state", state, "--host-usr", *options]
        argv += ["--id-base", str(ID_BASE)] if ranged else []
        argv += ["--exit", exit_path] if exit_path else []
        user = {} if ranged else {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.launcher = subprocess.Popen(
            [*(parent or []), *argv],
            pass_fds=[theirs.fileno(), *passed, *([] if image_fd is None else [image_fd])],
            stderr=subprocess.PIPE,
            env=os.environ | {"ASAN_OPTIONS": "handle_segv=0:detect_leaks=0"},
            **user,
        )
        theirs.close()
        super().__init__(ours)
        if "--await-claim" not in options:
            self.greeted()

    def claim(self, name="claimed", exit_path=None, magic=b"HWC1"):
        """Give one that waits for a claim its name and its exit."""
        assert self.sock.recv(1) == b"\1"
        way_out = [os.open(exit_path, os.O_PATH)] if exit_path else []
        socket.send_fds(self.sock, [magic + name.encode().ljust(64, b"\0")], way_out)
        for one in way_out:
            os.close(one)

    def greeted(self):
        """Wait until it serves."""
        try:
            kind, request_id, payload = self.frame()
        except Ended:
            self.launcher.wait(10)
            message = self.launcher.stderr.read().decode()
            self.close()
            raise AssertionError(f"did not start: {message}") from None
        assert (kind, request_id, payload) == (64, 0, struct.pack("<II", 1, 1))

    @staticmethod
    def child_of(pid):
        return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def agent_pid(self):
        """The agent's pid as the host sees it."""
        return self.child_of(self.launcher.pid)

    def processes(self):
        """Pids, as the host sees them, of everything in the sandbox's pid namespace."""
        mine = pathlib.Path(f"/proc/{self.agent_pid()}/ns/pid").readlink()
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == mine:
                    found.append(int(entry.name))
        return found

    def leaves(self, pids):
        """True when one of the processes is still there after a while."""
        return not gone(pids)

    def close(self):
        self.sock.close()
        try:
            self.launcher.wait(10)
        except subprocess.TimeoutExpired:
            self.launcher.send_signal(signal.SIGKILL)
            self.launcher.wait(10)
        if not self.launcher.stderr.closed:
            os.set_blocking(self.launcher.stderr.fileno(), False)
            said = self.launcher.stderr.read() or b""
            self.launcher.stderr.close()
            assert not any(word in said for word in (b"Sanitizer", b"runtime error:")), said


def make_image(folder):
    image = folder / "image"
    if image.exists():
        return image
    for name in ("etc/ssl/certs", "usr", "proc", "dev", "sys", "tmp", "var/tmp"):
        (image / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (image / name).symlink_to(f"usr/{name}")
    (image / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/workspace:/bin/sh\n"
    )
    (image / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (image / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    return image


@pytest.fixture
def id_base():
    """The first id of a sandbox with a range of ids."""
    return ID_BASE


@pytest.fixture
def bare_image():
    """Makes the image that a sandbox will stand on, for tests that change it first."""
    return make_image


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory):
    """The agent, built once; a directory that other users can reach.

    With GUEST_AGENT_SANITIZED, as `./run test --all` sets it, the build with the sanitizers, which end the
    agent where they find something, and so a test that it still has to answer. They leave it the signal
    that pid 1 is to ignore, and what is not given back when a program ends anyway.
    """
    place = tmp_path_factory.mktemp("agent")
    if os.environ.get("GUEST_AGENT_SANITIZED"):
        subprocess.run([GUEST / "build.sh", "--sanitize", "--output", place], check=True)
        target = place / "guest_agent_sanitized"
    else:
        target = place / "guest_agent"
        subprocess.run([GUEST / "build.sh", "--output", target], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="guest-bin-"))
    folder.chmod(0o755)
    shutil.copy(target, folder / "guest_agent")
    yield folder / "guest_agent"
    shutil.rmtree(folder)


@pytest.fixture
def open_box(agent_binary):
    """Launches sandboxes that end with the test. Needs root, for both modes: one drops it."""
    if os.geteuid():
        pytest.skip("needs root: the driver chooses the launcher's user")
    boxes, folders = [], []

    def launch(*, ranged=True, folder=None, **options):
        if not folder:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="guest-box-"))
            folder.chmod(0o755)
            folders.append(folder)
        box = Box(agent_binary, folder, ranged=ranged, **options)
        boxes.append(box)
        return box

    yield launch
    for box in boxes:
        box.close()
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(params=["ranged", "rootless"])
def box(request, open_box):
    return open_box(ranged=request.param == "ranged")


class ExitServer:
    """A stand-in for the egress proxy: answers each flow by a function of its kind and destination."""

    def __init__(self, folder, answer, backlog=1024):
        self.path = folder / "exit.sock"
        self.flows = []
        self.answer = answer
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.path.chmod(0o777)
        self.listener.listen(backlog)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                flow, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(flow,), daemon=True).start()

    def serve(self, flow):
        with flow, contextlib.suppress(OSError):
            head = flow.recv(24, socket.MSG_WAITALL)
            magic, kind, family, port = struct.unpack_from("!4sBBH", head)
            assert magic == b"HWX1"
            raw = head[8:12] if family == 4 else head[8:24]
            name = socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, raw)
            self.flows.append((kind, name, port))
            self.answer(flow, kind, name, port)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def open_exit():
    servers = []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="guest-exit-"))
    folder.chmod(0o755)

    def serve(answer, **options):
        server = ExitServer(folder, answer, **options)
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.close()
    shutil.rmtree(folder)


def gone(pids, seconds=10):
    """Waits for the end of processes; False when one stays."""
    return wait_until(
        lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), seconds
    )


def wait_until(condition, seconds=10):
    """Waits for a fact that comes soon; False when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
