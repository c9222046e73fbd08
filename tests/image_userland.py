"""A small userland as an image, taken from this host: programs and the libraries they load."""

import re
import shutil
import subprocess
from pathlib import Path

from image_archives import directory, entry, link, tar

PROGRAMS = (
    *("sh", "cat", "ls", "stat", "rm", "id", "touch", "mkdir", "chown", "env", "grep"),
    *("head", "ln", "readlink", "sleep", "sync", "pidof"),
)


def userland(*more):
    """Return a tar of a root directory in which the programs run; `more` are entries of its own."""
    files = {}
    for name in PROGRAMS:
        found = Path(shutil.which(name)).resolve()
        files[f"usr/bin/{name}"] = found.read_bytes()
        told = subprocess.run(["ldd", found], capture_output=True, text=True).stdout
        for path in re.findall(r"(/\S+\.so\S*)", told):
            real = Path(path).resolve()
            files[f"usr/lib/{Path(path).name}"] = real.read_bytes()
    folders = ("etc", "usr", "usr/bin", "usr/lib", "var", "var/lib")
    return tar(
        *(directory(name) for name in folders),
        *(link(name, f"usr/{name}") for name in ("bin",)),
        *(link(name, "usr/lib") for name in ("lib", "lib64")),
        entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
        entry("etc/group", b"root:x:0:\n"),
        entry("usr/lib/owned", b"data", uid=1000, gid=1000, mode=0o640),
        *(entry(name, data, mode=0o755) for name, data in sorted(files.items())),
        *more,
    )
