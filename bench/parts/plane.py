"""A whole `handiwork up` with its own local brain, as a user starts it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Plane:
    """A running control plane, and the keys to it and to its brain."""

    pid: int
    api: str
    brain: str
    environment_id: str
    admin_key: str
    brain_key: str


@contextlib.contextmanager
def running(directory: Path, *, settings: str) -> Iterator[Plane]:
    """Run it on free ports, in a directory, with these lines of configuration."""
    directory.chmod(0o711)
    config, log = directory / "handiwork.toml", directory / "control-plane.log"
    config.write_text(f"{settings}[api]\nport = 0\n[local_brain]\nport = 0\n")
    data = directory / "data"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "handiwork", "--config", config, "up"],
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "HANDIWORK_DATA_DIR": data},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        limit = time.monotonic() + START_SECONDS
        while not (data / "addresses.json").exists():
            if child.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"handiwork up did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        told = json.loads((data / "addresses.json").read_text())
        yield Plane(
            pid=child.pid,
            api=told["api"],
            brain=told["local_brain"],
            environment_id=told["environment_id"],
            admin_key=(data / "admin-key").read_text().strip(),
            brain_key=(data / "local-brain-api-key").read_text().strip(),
        )
    finally:
        child.terminate()
        child.wait(STOP_SECONDS)
