"""Background jobs: they go on, their output is bounded, and what became of each is told."""

import asyncio
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError, ToolFailedError
from handiwork.tools import jobs as module
from handiwork.tools.excerpt import TEXT_LIMIT
from handiwork.tools.jobs import Job, Jobs
from handiwork.tools.shell_process import Shell
from handiwork.tools.spool import Collector, Spool
from host_sandbox import HostSandbox


@pytest.fixture
def jobs(box: HostSandbox) -> Jobs:
    return Jobs(Spool(box, 2 << 20), 3)


async def ended(jobs: Jobs, command: str, state: bytes = b"") -> tuple[Job, str]:
    job = await jobs.start(command, state)
    await jobs.wait(job, 20)
    return job, await jobs.output(job)


@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        ("echo out; echo err >&2; exit 3", 3, "out\nerr"),
        ("true", 0, ""),
        ("read x; echo $?", 0, "1"),
        ("printf 'a\\xffb'", 0, "a\N{REPLACEMENT CHARACTER}b"),
        ("kill -9 $BASHPID", 137, ""),
        ("echo 'open", 2, "/bin/bash: eval: line 2: unexpected EOF while looking for matching `''"),
        ("echo \"it's\" '%s' %d \\\\", 0, "it's %s %d \\"),
        ("for i in 1 2\ndo echo $i\ndone", 0, "1\n2"),
        ("set -e; false; echo no", 1, ""),
    ],
)
async def test_end_and_output(jobs: Jobs, command: str, code: int, output: str) -> None:
    job, shown = await ended(jobs, command)
    assert (job.code, job.running) == (code, False)
    if "unexpected EOF" in output:
        assert "unexpected EOF" in shown
    else:
        assert shown == output
    assert job.state == f"ended with exit code {code}"


async def test_it_runs_and_its_output_grows(jobs: Jobs) -> None:
    job = await jobs.start("echo one; sleep 60; echo two")
    assert job.running
    shown = ""
    for _ in range(200):
        shown = shown or await jobs.output(job)
        await asyncio.sleep(0 if shown else 0.02)
    assert shown == "one"
    assert f"pid {job.process.pid}" in job.handle()
    assert job.path in job.handle()
    assert await jobs.news() == []
    await jobs.kill(job)
    assert job.state == "ended with exit code 137"
    assert await jobs.news() == [f"[background job {job.id} {job.state}; output: {job.path}]"]
    assert await jobs.news() == []


@pytest.mark.parametrize(
    "how", ["yes | head -c 30M", "for i in {1..30}; do echo $i; done; yes | head -c 30M"]
)
async def test_the_file_is_bounded_and_the_job_goes_on(
    jobs: Jobs, box: HostSandbox, how: str
) -> None:
    job, shown = await ended(jobs, f"{how}; echo the end >&2; touch done")
    assert job.code == 0
    assert (box.root / "workspace/done").exists()
    size = (box.root / job.path.lstrip("/")).stat().st_size
    dropped = len("\n[more than 2 MiB of output: so many bytes more were dropped]\n")
    assert 1 << 20 <= size <= (2 << 20) + 2 * dropped
    assert "bytes more were dropped]" in shown
    assert len(shown) < TEXT_LIMIT


async def test_so_many_run_at_once(jobs: Jobs) -> None:
    running = [await jobs.start("sleep 60") for _ in range(3)]
    with pytest.raises(
        ToolFailedError, match=r"3 background jobs are running, the limit here.*job_"
    ):
        await jobs.start("true")
    await jobs.kill(running[0])
    last = await jobs.start("true")
    await jobs.wait(last, 10)
    assert [job.code for job in await jobs.all()] == [137, None, None, 0]


async def test_it_has_the_state_of_a_shell(jobs: Jobs, box: HostSandbox) -> None:
    shell = Shell(box)
    assert await shell.state() == b""
    prepare = (
        "mkdir 'a b'; cd 'a b'; X='it''s\n2'; export Y=3; greet() { echo \"hi $1\"; }; umask 027;"
        " declare -A map=([k]=v); shopt -s extglob; alias l='echo al'; shopt -s expand_aliases;"
        " IFS=:; set -u; readonly Z=9; deep() { [[ $1 == @(a|b) ]] && echo deep; }"
    )
    await shell.run(prepare, Collector(jobs.spool, "x"), timeout_seconds=10)
    state = await shell.state()
    shows = 'basename "$PWD"; echo "$X"; env | grep ^Y; greet you; umask; echo "${map[k]}$Z"; deep a; l; echo $-'
    job, shown = await ended(jobs, shows, state)
    *lines, options = shown.split("\n")
    assert lines == ["a b", "its", "2", "Y=3", "hi you", "0027", "v9", "deep", "al"]
    assert "u" in options
    assert job.code == 0
    end, replaced = await shell.run("X=5; echo $Y", Collector(jobs.spool, "x"), timeout_seconds=10)
    assert (end.output, replaced) == ("3", False)


async def test_a_state_too_large_is_refused(
    jobs: Jobs, box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(box)
    big = "printf -v X %2000000s; echo ${#X}"
    await shell.run(big, Collector(jobs.spool, "x"), timeout_seconds=10)
    with pytest.raises(ToolFailedError, match="exceed 1048576 bytes"):
        await shell.state()
    end, _ = await shell.run("echo ${#X}", Collector(jobs.spool, "x"), timeout_seconds=10)
    assert end.output == "2000000"


async def test_what_became_of_one_that_is_not_known(jobs: Jobs, box: HostSandbox) -> None:
    for odd in ("job_00000000", "../../etc", "", "x" * 5000):
        with pytest.raises(ToolFailedError, match="there is no background job"):
            await jobs.find(odd)
    job, _ = await ended(jobs, "echo left")
    woken = Jobs(Spool(box), 3)
    assert await woken.all() == []
    assert await woken.former() == [job.id]
    with pytest.raises(ToolFailedError, match=f"{job.id} ended: the sandbox slept or was replaced"):
        await woken.find(job.id)


async def test_a_sandbox_that_is_gone_took_its_jobs(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await jobs.start("sleep 60")

    async def fail() -> None:
        raise SandboxUnavailableError("its agent died")

    monkeypatch.setattr(job.process, "wait", fail)
    assert (await jobs.find(job.id)).state == "ended with its sandbox: its agent died"
    assert "its agent died" in (await jobs.news())[0]


async def test_a_sandbox_that_takes_no_script_is_told(
    jobs: Jobs, box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.1)

    async def stuck(self: object, data: bytes) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("host_sandbox.HostProcess.write", stuck)
    with pytest.raises(ToolFailedError, match="could not be started in time"):
        await jobs.start("true")
    assert (await box.started[0].wait()).exit_code == 137


async def test_files_of_running_jobs_are_not_tidied_away(
    box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.tools.spool.FILES_LIMIT", 2)
    jobs = Jobs(Spool(box, 2 << 20), 9)
    job = await jobs.start("echo kept; sleep 60")
    kept = box.root / "workspace/.tool-output"
    for _ in range(1000):
        if await jobs.output(job):  # the job itself makes the file
            break
        await asyncio.sleep(0.01)
    for number in range(4):
        await jobs.spool.keep(f"other{number}", "x")
    assert Path(job.path).name in {path.name for path in kept.iterdir()}
    assert len(list(kept.iterdir())) <= 3
    await jobs.kill(job)


async def test_only_so_many_are_remembered(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    running = await jobs.start("sleep 60")
    for _ in range(4):
        await ended(jobs, "true")
    known = await jobs.all()
    assert running in known
    assert len(known) <= 3


@pytest.mark.parametrize("odd", ["readonly IFS", "ulimit -u 1; ulimit -n 4"])
async def test_a_state_that_cannot_be_copied_is_refused(
    jobs: Jobs, box: HostSandbox, odd: str
) -> None:
    shell = Shell(box)
    await shell.run(odd, Collector(jobs.spool, "x"), timeout_seconds=10)
    with pytest.raises(ToolFailedError, match="state could not be copied"):
        await shell.state()
