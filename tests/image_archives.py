"""Images as archives, well-formed or not, for tests."""

import gzip
import hashlib
import io
import json
import tarfile


def entry(name, data=None, *, kind=tarfile.REGTYPE, **fields):
    """One member: its header and its bytes. `fields` are of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(data or b"") if "size" not in fields else fields["size"]
    return info, data or b""


def directory(name, **fields):
    return entry(name, kind=tarfile.DIRTYPE, **fields)


def link(name, target, **fields):
    return entry(name, kind=tarfile.SYMTYPE, linkname=target, **fields)


def hard(name, target):
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def tar(*members, form=tarfile.PAX_FORMAT):
    """A tar of these members, as they are: nothing is made of a name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_name(digest):
    return f"blobs/sha256/{digest.partition(':')[2]}"


class Oci:
    """An OCI layout of layers given as tars; change its parts before `tar()` to break it."""

    def __init__(self, *layers, config=None, compress=True):
        packed = [gzip.compress(one, 1) if compress else one for one in layers]
        self.blobs = {sha256(one): one for one in packed}
        document = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in layers]},
            "config": config or {},
        }
        self.config = self.add(document)
        self.manifest = {
            "schemaVersion": 2,
            "config": self.told(self.config),
            "layers": [self.told(sha256(one)) for one in packed],
        }
        self.platforms = [None]

    def add(self, document):
        data = json.dumps(document).encode()
        self.blobs[sha256(data)] = data
        return sha256(data)

    def told(self, digest, **more):
        return {"digest": digest, "size": len(self.blobs[digest]), **more}

    def tar(self):
        digest = self.add(self.manifest)
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifests = [
            self.told(digest, mediaType=kind, **({"platform": one} if one else {}))
            for one in self.platforms
        ]
        index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        return tar(
            entry("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            entry("index.json", index),
            *(entry(blob_name(digest), data) for digest, data in self.blobs.items()),
        )


def docker_archive(*layers, config=None):
    """What `docker save` writes."""
    document = {
        "rootfs": {"diff_ids": [sha256(one) for one in layers]},
        "config": config or {},
    }
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    listed = [{"Config": "config.json", "RepoTags": ["x:latest"], "Layers": names}]
    return tar(
        entry("config.json", json.dumps(document).encode()),
        *(entry(name, data) for name, data in zip(names, layers, strict=True)),
        entry("manifest.json", json.dumps(listed).encode()),
    )
