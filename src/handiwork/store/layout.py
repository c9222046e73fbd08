"""Where everything lives in the data directory, and who owns it."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from handiwork.model.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Paths below one root, which only its owner may enter (0700)."""

    root: Path

    @property
    def database(self) -> Path:
        """The control plane's SQLite file."""
        return self.root / "handiwork.db"

    @property
    def control_key(self) -> Path:
        """The key-encryption key of control secrets (0600)."""
        return self.root / "control.kek"

    @property
    def admin_key(self) -> Path:
        """The admin key for the API over TCP, made at the first start (0600)."""
        return self.root / "admin-key"

    @property
    def api_socket(self) -> Path:
        """The API's unix socket, for the local CLI."""
        return self.root / "api.sock"

    @property
    def addresses(self) -> Path:
        """Where a running control plane listens: JSON with `api` and `local_brain`."""
        return self.root / "addresses.json"

    @property
    def exits(self) -> Path:
        """Egress sockets."""
        return self.root / "exits"

    @property
    def sandboxes(self) -> Path:
        """State of the sandbox drivers."""
        return self.root / "sandboxes"

    @property
    def images(self) -> Path:
        """Images, for the drivers of every tier."""
        return self.root / "images"

    @property
    def skills(self) -> Path:
        """Archives of skills, kept to spare a download; it may be emptied at any time."""
        return self.root / "skills"

    @property
    def snapshots(self) -> Path:
        """Snapshots of sandboxes, unless the settings name another place."""
        return self.root / "snapshots"

    @property
    def egress(self) -> Path:
        """What the proxy keeps; its process owns the directory."""
        return self.root / "egress"

    @property
    def audit(self) -> Path:
        """The proxy's audit segments."""
        return self.egress / "audit"

    @property
    def hooks(self) -> Path:
        """Hooks: files of the operator's, which their process may read and not write."""
        return self.root / "hooks"

    @property
    def hooks_state(self) -> Path:
        """What hooks keep; their process owns the directory."""
        return self.hooks / "state"

    @property
    def local_brain(self) -> Path:
        """The local brain's database; its process owns the directory."""
        return self.root / "local-brain"

    @property
    def local_brain_key(self) -> Path:
        """The API key of the local brain, for the user's own SDK client (0600)."""
        return self.root / "local-brain-api-key"

    def prepare(
        self, *, egress_id: int | None, brain_id: int | None, hooks_id: int | None = None
    ) -> None:
        """Make what is missing. Ids given (as root) own their directories. ConfigError says what to do."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            for path, owner in [
                (self.exits, None),
                (self.sandboxes, None),
                (self.egress, egress_id),
                (self.egress / "keys", egress_id),
                (self.audit, egress_id),
                (self.local_brain, brain_id),
                (self.hooks, None),
                (self.hooks_state, hooks_id),
            ]:
                path.mkdir(mode=0o700, exist_ok=True)
                if owner is not None:
                    os.chown(path, owner, owner)
            if hooks_id is not None:
                self.hooks.chmod(0o755)  # below the root that only its owner may enter
        except OSError as error:
            raise ConfigError(
                f"the data directory {self.root} cannot be used: {error.strerror};"
                " set data_dir in handiwork.toml (or HANDIWORK_DATA_DIR) to a directory you may write"
            ) from None

    def lock(self) -> int:
        """Take the directory for this process; ConfigError when another one runs on it."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"another handiwork runs on {self.root}; stop it, or set another data_dir"
            ) from None
        return descriptor


def read_or_create(path: Path, make: bytes) -> bytes:
    """Return the file's bytes; when it is missing, create it (0600) with `make`, whole or not at all.

    ConfigError when it holds less than `make` would: an empty key must never be taken for one.
    """
    if not path.exists():
        _create(path, make)
    content = path.read_bytes()
    if len(content) < len(make):
        raise ConfigError(f"{path} is cut short; remove it to have a new one made")
    return content


def read_private(path: Path, where: str) -> str:
    """Return the text of a key file; ConfigError, led by `where`, when others can read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from None
    if mode & 0o077:
        raise ConfigError(f"{where} can be read by others; run `chmod 600 {path}`")
    if not text:
        raise ConfigError(f"{where} is empty; put the key into it")
    return text


def _create(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
