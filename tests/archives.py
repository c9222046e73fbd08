"""Archives made for tests, by the standard library: good ones and bad."""

import io
import stat
import tarfile
import zipfile

FILES = {"skill/SKILL.md": b"# hi\n", "skill/scripts/run.sh": b"#!/bin/sh\n", "skill/a/b/c": b""}


def zipped(files=FILES, method=zipfile.ZIP_DEFLATED, modes=None):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            info.compress_type = method
            archive.writestr(info, data)
    return out.getvalue()


def tarred(files=FILES, format=tarfile.PAX_FORMAT, members=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o700 if name.endswith(".sh") else 0o600
            archive.addfile(info, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return out.getvalue()


def member(name, kind, **more):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info
