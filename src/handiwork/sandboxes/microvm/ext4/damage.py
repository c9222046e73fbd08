"""What is raised for a disk that cannot be read."""

from handiwork.model.errors import SandboxUnavailableError


class DamagedDiskError(SandboxUnavailableError):
    """The disk of a machine holds what no file system of ours does."""

    def __init__(self, what: str) -> None:
        super().__init__(f"its disk cannot be read: {what}")
