"""Blobs through `obstore`: one adapter for a local directory and for every S3-compatible service."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import obstore
from obstore import exceptions
from obstore.store import LocalStore, S3Store

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.model.redacted import shown_as_repr
from handiwork.observe import log
from handiwork.store.blobs import check_key, is_key

MAX_NAMED = 4096
"""Directories that are known to be named durably; no blob's directory is ever removed."""
MAX_TOLD = 3
"""Of the names that are no keys, in one line of the log."""


class S3Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where on S3. `endpoint` empty: Amazon's own; one that begins with http: is not encrypted."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    access_key_id: str
    secret_access_key: str
    timeout_seconds: float = 60.0
    retry_seconds: float = 60.0

    def __repr__(self) -> str:
        """Tell the place and not the key."""
        return (
            f"S3Place(bucket={self.bucket!r}, prefix={self.prefix!r}, endpoint={self.endpoint!r})"
        )

    __rich_repr__ = shown_as_repr


class ObjectBlobs:
    """Implements `store.blobs.Blobs`. `directory` is where a local store lies, for its fsyncs."""

    def __init__(self, store: Any, where: str, directory: Path | None = None) -> None:
        self._store = store
        self._where = where
        self._directory = directory
        self._named: set[Path] = set()
        self._log = log.get("blobs")

    @classmethod
    def in_directory(cls, directory: Path) -> "ObjectBlobs":
        """Keep them in a directory, made (0700) where it is missing."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(LocalStore(directory), str(directory), directory)

    @classmethod
    def on_s3(cls, place: S3Place) -> "ObjectBlobs":
        """Keep them in a bucket that is there."""
        store = S3Store(
            place.bucket,
            prefix=place.prefix or None,
            endpoint=place.endpoint or None,
            region=place.region,
            access_key_id=place.access_key_id,
            secret_access_key=place.secret_access_key,
            client_options={
                "timeout": timedelta(seconds=place.timeout_seconds),
                "connect_timeout": timedelta(seconds=min(5.0, place.timeout_seconds)),
                "allow_http": place.endpoint.startswith("http:"),
            },
            retry_config={
                "max_retries": 5,
                "retry_timeout": timedelta(seconds=place.retry_seconds),
            },
        )
        return cls(store, f"s3://{place.bucket}")

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes durably under a key."""
        with self._told("write", key):
            obstore.put(self._store, check_key(key), data, use_multipart=False)
            self._make_durable(key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Keep bytes durably unless the key is taken."""
        with self._told("write", key):
            try:
                obstore.put(self._store, check_key(key), data, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError:
                return False
            self._make_durable(key)
        return True

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the bytes of a key."""
        with self._told("read", key):
            if limit_bytes is None:
                return bytes(obstore.get(self._store, check_key(key)).bytes())
            options: Any = {"range": (0, limit_bytes)}
            return bytes(obstore.get(self._store, check_key(key), options=options).bytes())

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix.

        A directory may hold what a file system, a desktop or a broken-off copy left in it.
        """
        first: list[str] = []
        others = 0
        with self._told("list", prefix):
            for batch in obstore.list(self._store, prefix=check_key(prefix)):
                for found in batch:
                    if is_key(path := found["path"]):
                        yield path
                        continue
                    others += 1
                    if others <= MAX_TOLD:
                        first.append(path[:200])
        if others:
            self._log.warning(
                "files that are no blobs are passed over; move them elsewhere",
                where=self._where,
                below=prefix,
                count=others,
                first=first,
            )

    def delete(self, key: str) -> None:
        """Forget a key."""
        try:
            with self._told("delete", key):
                obstore.delete(self._store, check_key(key))
        except NotFoundError:
            return

    def _make_durable(self, key: str) -> None:
        """Flush a local file, and the directories that name it: only then it counts as kept.

        A directory that was named durably before is no new name in its parent.
        """
        if self._directory is None:
            return
        path = self._directory / key
        _flush(path)
        new = []
        while path != self._directory:
            path = path.parent
            _flush(path)
            if path in self._named:
                break
            new.append(path)
        if len(self._named) > MAX_NAMED:
            self._named.clear()
        self._named.update(new)

    @contextmanager
    def _told(self, verb: str, key: str) -> Iterator[None]:
        """Turn what the store raises into our words."""
        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError):
            raise NotFoundError(f"{self._where} has no {key}") from None
        except (exceptions.BaseError, OSError) as error:
            line = str(error).partition("\n")[0][:300]
            raise SandboxUnavailableError(
                f"{self._where}: cannot {verb} {key}: {line}; check [snapshots] in handiwork.toml"
            ) from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
