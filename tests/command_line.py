"""`handiwork` as a user types it: a process of its own with settings of its own."""

import os
import subprocess
import sys
from pathlib import Path

SECONDS = 40


def handiwork(
    *arguments: str,
    cwd: Path,
    config: str | None = None,
    prefix: tuple[str, ...] = (),
    given: str = "",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run one command line in `cwd`; `given` is its standard input.

    The data directory is `cwd/data` and every port a free one, unless the variables say otherwise.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "HANDIWORK_DATA_DIR": str(cwd / "data"),
        "HANDIWORK_API_PORT": "0",
        "HANDIWORK_LOCAL_BRAIN_PORT": "0",
        **variables,
    }
    if config is not None:
        (cwd / "handiwork.toml").write_text(config)
        environment["HANDIWORK_CONFIG"] = str(cwd / "handiwork.toml")
    return subprocess.run(
        [*prefix, sys.executable, "-m", "handiwork", *arguments],
        cwd=cwd,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
