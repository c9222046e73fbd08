"""A tier whose tar does nothing, or whose root is not its own, is found out."""

import pytest

from handiwork.model.sandbox import ExecResult, FileInfo, FileKind
from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import FakeDriver, FakeFiles, FakeSandbox
from image_archives import entry, tar

CHECKED = (
    "a tree goes out and in as it is",
    "links of a tree lead into the own root",
    "devices go neither out nor in",
    "a tree over a limit ends and leaves no process",
    "what cannot be unpacked is told",
)


class Tar:
    """Gives one archive, takes anything, and does nothing with it."""

    def __init__(self, packed):
        self._packed = packed

    async def output(self):
        yield "stdout", self._packed

    async def write(self, data):
        return

    async def close_stdin(self):
        return

    async def wait(self):
        return ExecResult(exit_code=0, stdout=b"", stderr=b"")

    def close(self):
        return


@pytest.mark.parametrize(
    "packed", [tar(), tar(entry("./tree-canary", b"of the host\n"), entry("./pipe"))]
)
async def test_found_out(monkeypatch, packed):
    async def start(self, request, *, stdin=False):
        return Tar(packed)

    async def is_directory(self, path, *, follow=True):
        return FileInfo(
            name="d", kind=FileKind.DIRECTORY, mode=0o755, size=0, mtime_ns=0, uid=0, gid=0
        )

    monkeypatch.setattr(FakeSandbox, "start", start)
    monkeypatch.setattr(FakeFiles, "stat", is_directory)
    shell = lambda _: ExecResult(exit_code=0, stdout=b"", stderr=b"")  # noqa: E731
    driver = FakeDriver({**FakeDriver().commands, "sh": shell})
    found = [made async for made in selfcheck(driver, only=CHECKED)]
    assert [made.name for made in found] == list(CHECKED)
    assert not any(made.ok for made in found)
    assert [made.detail for made in found if "Error" in made.detail] == []
