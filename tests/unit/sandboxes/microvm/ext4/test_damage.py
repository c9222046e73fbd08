from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError


def test_it_is_told_as_a_sandbox_that_cannot_be_had():
    error = DamagedDiskError("it is cut short")
    assert isinstance(error, SandboxUnavailableError)
    assert str(error) == "its disk cannot be read: it is cut short"
