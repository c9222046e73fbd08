"""A control plane of a test's own: `handiwork up` as a user starts it, on a directory of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BRAINLESS = "[local_brain]\nenabled = false\n"
"""Added to the settings of one that is only driven: it serves no environment, and starts in half the time."""
SLEEPLESS = '[sessions]\nidle_seconds = 1.0\ndrain_seconds = 2.0\n[log]\nlevel = "debug"\n'


@dataclass
class ControlPlane:
    """A running one."""

    data: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def addresses(self) -> dict[str, str]:
        """`api`, `local_brain`, `environment_id`."""
        return json.loads((self.data / "addresses.json").read_text())

    @property
    def admin_key(self) -> str:
        return (self.data / "admin-key").read_text().strip()

    @property
    def brain_key(self) -> str:
        return (self.data / "local-brain-api-key").read_text().strip()

    @property
    def socket(self) -> Path:
        return self.data / "api.sock"

    def kill(self) -> None:
        """As a power cut would: no clean-up of its own."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 30.0) -> int:
        """As an operator would."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def start(
    directory: Path,
    *,
    config: str = SLEEPLESS,
    python_path: Path | None = None,
    seconds: float = 90.0,
    through: tuple[str, ...] = (),
) -> ControlPlane:
    """Start one on `directory/data` and return when it serves; a former run's files are adopted.

    `through` is a program that becomes it, with its arguments.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "handiwork.toml").write_text(config)
    data, log = directory / "data", directory / "control-plane.log"
    (data / "addresses.json").unlink(missing_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "HANDIWORK_DATA_DIR": str(data),
        "HANDIWORK_API_PORT": "0",
        "HANDIWORK_LOCAL_BRAIN_PORT": "0",
    }
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *through,
                sys.executable,
                "-m",
                "handiwork",
                "--config",
                str(directory / "handiwork.toml"),
                "up",
            ],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    plane = ControlPlane(data=data, process=process, log=log)
    limit = time.monotonic() + seconds
    while not (data / "addresses.json").exists():
        if process.poll() is not None or time.monotonic() > limit:
            process.kill()
            process.wait()
            raise AssertionError(f"it did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)
    return plane


def command_line(entry: Path) -> bytes:
    """Read a `/proc/PID/cmdline`; empty when its process has ended."""
    try:
        return entry.read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[ControlPlane]:
    """Start one and stop it at the end; a test that failed sees the end of its log."""
    plane = start(directory, **options)  # type: ignore[arg-type]  # the keywords of `start`
    try:
        yield plane
    except BaseException:
        sys.stderr.write(plane.log.read_text()[-6000:])
        raise
    finally:
        if plane.process.poll() is None:
            try:
                plane.stop()
            except subprocess.TimeoutExpired:
                plane.kill()
                raise
