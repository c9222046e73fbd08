"""What else starts a command behind walls: bubblewrap, runc, podman, and a machine of QEMU alone."""

import json
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handiwork.sandboxes.gvisor.driver import find_runsc
from handiwork.sandboxes.images.host import host_image
from handiwork.sandboxes.microvm.cpio import Entry, archive
from handiwork.sandboxes.microvm.kernel import find_kernel, unpacked
from harness import ROOT, Arm, Bench, Skip

COMMAND, OUTPUT = ("/bin/echo", "ready"), b"ready\n"
BOOT_SECONDS = 60.0
BURST_SECONDS = 20.0
LIBRARIES = re.compile(r"(/\S+) \(0x")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_BWRAP = (
    "--unshare-all --die-with-parent --new-session --cap-drop ALL --ro-bind /usr /usr"
    " --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64"
    " --proc /proc --dev /dev --tmpfs /tmp --tmpfs /workspace"
)
Start = Callable[[], float]


def program(name: str) -> str:
    """Return where a peer is; Skip by name when it is not there."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Skip(f"{name} is not installed: apt-get install {name}")
    return found


def version_of(argv: list[str]) -> str:
    """Return the number that a program tells of itself."""
    told = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d[\w.+~-]*", told)
    return found[0] if found else "unknown"


def first_output(argv: list[str], *, wanted: bytes = OUTPUT, env: dict | None = None) -> float:
    """Return the seconds from nothing to the command's output, by the shortest way to start it."""
    reader, writer = os.pipe()
    errors = os.open("/dev/null", os.O_WRONLY)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    before = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, env or {}, file_actions=actions)
    os.close(writer)
    output = b""
    while wanted not in output and (more := os.read(reader, 4096)):
        output += more
    seconds = time.perf_counter() - before
    while os.read(reader, 4096):
        continue
    _, status = os.waitpid(pid, 0)
    os.close(reader)
    os.close(errors)
    if wanted not in output or status:
        raise RuntimeError(f"{argv[0]} ended with {status} after {output[-200:]!r}")
    return seconds


def outputs_at_once(argv: list[str], count: int) -> list[float]:
    """Start a command so many times at one moment; return the seconds until each one's output."""
    taken, started = [], []
    before = time.perf_counter()
    try:
        for _ in range(count):
            started.append(
                subprocess.Popen(
                    argv,
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
        with selectors.DefaultSelector() as waiting:
            for one in started:
                waiting.register(one.stdout, selectors.EVENT_READ)
            while waiting.get_map() and (ready := waiting.select(BURST_SECONDS)):
                for key, _ in ready:
                    if os.read(key.fd, 4096) == OUTPUT:
                        taken.append(time.perf_counter() - before)
                    waiting.unregister(key.fileobj)
        ended = [one.wait(BURST_SECONDS) for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()
            one.stdout.close()
    if any(ended) or len(taken) < count:
        raise Skip(f"{argv[0]}: of {count} at once {len(taken)} answered, {ended} was their end")
    return taken


def host() -> Start:
    """The command with nothing around it: what no sandbox that starts it can be faster than."""
    return lambda: first_output([*COMMAND])


def bubblewrap(bench: Bench) -> Start:
    """A command in it."""
    argv = bubblewrapped(bench)
    return lambda: first_output(argv)


def bubblewrapped(bench: Bench) -> list[str]:
    """Return the command as bubblewrap starts it."""
    found = program("bwrap")
    bench.versions["bubblewrap"] = version_of([found, "--version"])
    return [found, *_BWRAP.split(), "--", *COMMAND]


@contextmanager
def bundle() -> Iterator[Path]:
    """Yield a directory with the root file system of our `host` image, for engines that want one."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-bench-"))
    try:
        tree = host_image(directory / "images").tree
        shutil.copytree(tree, directory / "rootfs", symlinks=True)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def runc(bench: Bench, directory: Path) -> Start:
    """The same with runc, by its own default configuration: /usr read-only, no network, no filter of calls."""
    return _oci(bench, program("runc"), directory)


def runsc(bench: Bench, directory: Path) -> Start:
    """The same with gVisor alone, on the platform that it takes by itself."""
    found = find_runsc("")
    if found is None:
        raise Skip("runsc is not installed: apt-get install runsc")
    return _oci(bench, str(found), directory, "--network=none", "--ignore-cgroups")


def _oci(bench: Bench, found: str, directory: Path, *flags: str) -> Start:
    name = Path(found).name
    bench.versions[name] = version_of([found, "--version"])
    file = directory / "config.json"
    file.unlink(missing_ok=True)
    subprocess.run([found, "spec"], cwd=directory, check=True)
    config = json.loads(file.read_text())
    config["process"] |= {"terminal": False, "args": list(COMMAND)}
    config["root"] = {"path": "rootfs", "readonly": True}
    config["linux"]["namespaces"] = [{"type": kind} for kind in NAMESPACES]
    usr = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
    config["mounts"].append(usr)
    file.write_text(json.dumps(config))
    root = ["--root", str(directory / f"{name}-state"), *flags]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def start() -> float:
        argv = [found, *root, "run", "--bundle", str(directory), f"bench{time.monotonic_ns()}"]
        return first_output(argv, env=env)

    return _tried(name, start)


def podman(bench: Bench, directory: Path) -> Start:
    """The same with podman, on the same root file system, without an image of its own."""
    found = program("podman")
    bench.versions["podman"] = version_of([found, "--version"])
    store = ["--root", str(directory / "store"), "--runroot", str(directory / "run")]
    store += [
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        program("runc"),
        "--storage-driver",
        "vfs",
    ]
    argv = [found, *store, "run", "--rm", "--network", "none", "--volume", "/usr:/usr:ro"]
    argv += ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--rootfs"]
    argv += [str(directory / "rootfs"), *COMMAND]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)}
    return _tried("podman", lambda: first_output(argv, env=env))


def arm(start: Start) -> Arm:
    """Return it as a benchmark's arm; blocking, for nothing else runs meanwhile."""

    async def once() -> float:
        return start()

    return once


def _tried(name: str, start: Start) -> Start:
    """Start it once; Skip with its reason where it does not run here."""
    try:
        start()
    except RuntimeError as error:
        raise Skip(f"{name} does not run here: {error}") from None
    return start


@contextmanager
def qemu(bench: Bench) -> Iterator[Start]:
    """Yield a cold boot of QEMU alone: the same kernel, a shell as its first process, no disk, no jail."""
    found = program("qemu-system-x86_64")
    bench.versions["qemu"] = version_of([found, "--version"])
    kernel_dir = ROOT / ".kernel"
    kernel = find_kernel(kernel_dir if kernel_dir.is_dir() else Path("/"))
    with tempfile.TemporaryDirectory(prefix="handiwork-bench-") as name:
        image, initrd = Path(name, "kernel"), Path(name, "initrd")
        image.write_bytes(unpacked(kernel.image.read_bytes()))
        initrd.write_bytes(archive(_shell()))
        argv = [found, "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-m", "256M"]
        argv += ["-M", "pc,usb=off,vmport=off,i8042=off,hpet=off,smbus=off"]
        argv += ["-accel", "tcg,tb-size=64", "-cpu", "Nehalem", "-serial", "stdio"]
        argv += ["-kernel", str(image), "-initrd", str(initrd), "-append"]
        argv += ["console=ttyS0 quiet loglevel=3 reboot=t panic=-1 tsc=unstable mitigations=off"]
        yield lambda: first_output(argv, wanted=b"ready")


def _shell() -> Iterator[Entry]:
    """Yield what /bin/sh needs, and a script that says one word and lets the machine restart, which ends it."""
    shell = Path("/bin/sh").resolve()
    told = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    files = {Path(place): Path(place).resolve() for place in LIBRARIES.findall(told)}
    files[Path("/bin/sh")] = shell
    made = set()
    for place, content in files.items():
        for parent in reversed(place.parents[:-1]):
            if parent not in made:
                yield Entry(path=str(parent)[1:])
            made.add(parent)
        yield Entry(path=str(place)[1:], content=content.read_bytes(), mode=0o755)
    script = b"#!/bin/sh\necho ready\nexit 0\n"
    yield Entry(path="init", content=script, mode=0o755)
