"""Wishes are put in place once; git is asked in a way that leaves a stranger no word in it."""

from pathlib import Path

import pytest

from handiwork.config import StagingSettings
from handiwork.model.errors import GuestError, HandiworkError, UnsupportedError
from handiwork.model.sandbox import ExecRequest, ExecResult
from handiwork.sessions.staging.stage import commands, stage
from handiwork.sessions.staging.wishes import FileWish, GitWish, Wishes
from host_sandbox import HostSandbox

URL = "https://git.example.org/repo"
REPO = Wishes(repositories=(GitWish(name="repo", url=URL),))


class FakeGit(HostSandbox):
    """A sandbox whose git makes a directory, or fails as told."""

    def __init__(self, root: Path) -> None:
        super().__init__("sbx_1", root)
        self.asked: list[ExecRequest] = []
        self.result = ExecResult(exit_code=0, stdout=b"", stderr=b"")
        self.missing = False

    async def exec(self, request: ExecRequest) -> ExecResult:
        self.asked.append(request)
        if self.missing:
            raise GuestError("no such file", errno=2)
        await self.files.write(f"{request.argv[-1]}/README", b"cloned")
        return self.result


@pytest.fixture
async def box(tmp_path: Path) -> FakeGit:
    return FakeGit(tmp_path / "box")


@pytest.fixture
def settings(tmp_path: Path) -> StagingSettings:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/in.csv").write_bytes(b"1,2")
    return StagingSettings(files_dir=str(tmp_path / "store"), git_hosts=("git.example.org",))


async def test_what_was_asked_for_is_there(box: FakeGit, settings: StagingSettings) -> None:
    wishes = Wishes(
        repositories=REPO.repositories, files=(FileWish(path="data/in.csv", file_id="in.csv"),)
    )
    await stage(box, wishes, settings)
    assert (box.root / "workspace/repo/README").read_bytes() == b"cloned"
    assert (box.root / "workspace/data/in.csv").read_bytes() == b"1,2"
    (request,) = box.asked
    assert request.env["GIT_TERMINAL_PROMPT"] == "0"
    assert request.env["GIT_ALLOW_PROTOCOL"] == "https"
    assert request.argv[-3:-1] == ("--", URL)


async def test_what_the_agent_made_of_it_stays(box: FakeGit, settings: StagingSettings) -> None:
    wishes = Wishes(files=(FileWish(path="in.csv", file_id="in.csv"),))
    await stage(box, wishes, settings)
    (box.root / "workspace/in.csv").unlink()
    await stage(box, wishes, settings)
    assert not (box.root / "workspace/in.csv").exists()
    more = Wishes(repositories=REPO.repositories, files=wishes.files)
    (box.root / "workspace/repo").mkdir()
    await stage(box, more, settings)
    assert box.asked == []
    assert (box.root / "workspace/in.csv").exists()


async def test_a_clone_that_fails_leaves_no_half_and_says_why(
    box: FakeGit, settings: StagingSettings
) -> None:
    said = b"Cloning\nfatal: repository '\x1b[31mx' not found\n"
    box.result = ExecResult(exit_code=128, stdout=said, stderr=b"")
    with pytest.raises(HandiworkError, match=r"cannot clone .*: fatal: repository ' \[31mx' not"):
        await stage(box, REPO, settings)
    assert not (box.root / "workspace/repo").exists()
    box.result = ExecResult(exit_code=0, stdout=b"", stderr=b"")
    await stage(box, REPO, settings)
    assert (box.root / "workspace/repo/README").exists()


async def test_git_that_hangs_or_is_not_there(box: FakeGit, settings: StagingSettings) -> None:
    box.result = ExecResult(exit_code=137, stdout=b"", stderr=b"", timed_out=True)
    with pytest.raises(HandiworkError, match="within 300 s"):
        await stage(box, REPO, settings)
    box.missing = True
    with pytest.raises(UnsupportedError, match="has no git"):
        await stage(box, REPO, settings)


def test_a_commit_is_checked_out_after_the_clone() -> None:
    commit = "a" * 40
    first, second = commands(GitWish(name="r", url=URL, ref=commit), "/workspace/r")
    assert "--no-checkout" in first
    assert second[-3:] == ("--detach", commit, "--")
    (only,) = commands(GitWish(name="r", url=URL, ref="main"), "/workspace/r")
    assert "--branch=main" in only
    for argv in (first, second, only):
        assert "protocol.allow=never" in argv
        assert "http.followRedirects=false" in argv
