"""Checks of commands: first with programs alone, then with a shell."""

import asyncio
import errno
import signal

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.selfcheck.table import Bench, Lacks, Refuted, check, expect, hold, refused

PATIENCE_SECONDS = 20.0


@check("command")
async def _true_and_false_tell_their_exit_codes(bench: Bench) -> None:
    expect((await bench.run("true")).exit_code, 0, "exit code of true")
    expect((await bench.run("false")).exit_code, 1, "exit code of false")


@check("command")
async def _arguments_arrive_as_given(bench: Bench) -> None:
    result = await bench.run("echo", "a b", "", "$HOME", "*", "ä")
    expect(result.stdout, "a b  $HOME * ä\n".encode(), "output of echo")


@check("command")
async def _standard_input_is_fed_and_ended(bench: Bench) -> None:
    data = bytes(range(256)) * 64
    expect((await bench.run("cat", stdin=data)).stdout, data, "what cat gave back")
    expect((await bench.run("cat", stdin=b"")).stdout, b"", "what cat gave back of nothing")


@check("command")
async def _a_missing_program_is_told(bench: Bench) -> None:
    await refused(bench.run("no-such-program"), errno.ENOENT)


@check("command")
async def _environment_is_what_was_asked_for(bench: Bench) -> None:
    request = ExecRequest(argv=("env",), cwd="/", env={"COLOUR": "blue", "LANG": "C"})
    lines = (await (await bench.box()).exec(request)).stdout.decode().splitlines()
    for wanted in ("COLOUR=blue", "LANG=C", "HOME=/root", "TERM=dumb"):
        hold(wanted in lines, f"{wanted} is not in the environment")
    hold("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in lines, "no CA variables")


@check("shell")
async def _working_directory_is_used(bench: Bench) -> None:
    request = ExecRequest(argv=("pwd",), cwd="/usr/bin")
    expect((await (await bench.box()).exec(request)).stdout, b"/usr/bin\n", "directory")
    missing = ExecRequest(argv=("pwd",), cwd="/no/such")
    await refused((await bench.box()).exec(missing), errno.ENOENT)


@check("shell")
async def _both_streams_are_told_apart(bench: Bench) -> None:
    result = await bench.shell("echo out; echo err >&2; exit 7")
    seen = (result.exit_code, result.stdout, result.stderr)
    expect(seen, (7, b"out\n", b"err\n"), "code and streams")


@check("shell")
async def _streams_can_be_merged_in_order(bench: Bench) -> None:
    request = ExecRequest(argv=("sh", "-c", "echo 1; echo 2 >&2; echo 3"), merge_stderr=True)
    result = await (await bench.box()).exec(request)
    expect((result.stdout, result.stderr), (b"1\n2\n3\n", b""), "merged output")


@check("shell")
async def _death_by_signal_is_128_and_its_number(bench: Bench) -> None:
    expect((await bench.shell("kill -TERM $$")).exit_code, 128 + 15, "exit code")


@check("command")
async def _what_fails_for_another_reason_is_not_told_as_out_of_memory(bench: Bench) -> None:
    kills = await (await bench.box()).memory_kills()
    hold(not (await bench.run("false")).out_of_memory, "false was told as out of memory")
    hold(not await kills.rose(), "a kill was told, and nothing was killed")


@check("shell")
async def _timeout_kills_the_whole_tree(bench: Bench) -> None:
    script = "(setsid sh -c 'sleep 77.5 & sleep 77.5' &) ; sleep 77.5 & sleep 77.5"
    request = ExecRequest(argv=("sh", "-c", script), timeout_seconds=0.3)
    result = await (await bench.box()).exec(request)
    hold(result.timed_out, "it did not time out")
    expect((await bench.shell(count_sleeps("77.5"))).stdout, b"0\n", "processes that are left")


@check("shell")
async def _cancelling_kills_the_whole_tree(bench: Bench) -> None:
    box = await bench.box()
    script = "setsid sleep 78.5 & sleep 78.5"
    try:
        async with asyncio.timeout(0.3):
            await box.exec(ExecRequest(argv=("sh", "-c", script)))
    except TimeoutError:
        pass
    for _ in range(50):
        if (await bench.shell(count_sleeps("78.5"))).stdout == b"0\n":
            return
        await asyncio.sleep(0.02)
    hold(False, "processes are left after cancelling")


def count_sleeps(seconds: str) -> str:
    """Return a script that counts the sleeps of so many seconds, without finding itself."""
    return (
        "n=0; for f in /proc/[0-9]*/cmdline; do"
        f" case $(tr '\\0' ' ' <$f 2>/dev/null) in 'sleep {seconds} ') n=$((n+1));; esac;"
        " done; echo $n"
    )


@check("shell")
async def _a_background_process_lives_on(bench: Bench) -> None:
    result = await bench.shell("sleep 76.5 >/dev/null 2>&1 & echo started")
    expect(result.stdout, b"started\n", "output")
    expect((await bench.shell(count_sleeps("76.5"))).stdout, b"1\n", "processes that live")
    await bench.shell("kill $(pidof sleep); true")


@check("shell")
async def _output_past_the_limit_is_dropped(bench: Bench) -> None:
    script = "head -c 300000 /dev/zero; head -c 5 /dev/zero >&2; exit 4"
    request = ExecRequest(argv=("sh", "-c", script), output_limit_bytes=1000)
    result = await (await bench.box()).exec(request)
    seen = (result.exit_code, len(result.stdout), len(result.stderr), result.truncated)
    expect(seen, (4, 1000, 5, True), "code, kept bytes, truncated")


@check("shell")
async def _large_output_arrives_whole(bench: Bench) -> None:
    script = "head -c 4000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero >&2"
    result = await bench.shell(script)
    seen = (result.stdout.count(b"x"), len(result.stderr), result.truncated)
    expect(seen, (4_000_000, 1_000_000, False), "bytes of both streams")


@check("shell")
async def _commands_run_at_the_same_time(bench: Bench) -> None:
    script = "read line; echo $line"
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(bench.run("sh", "-c", script, stdin=f"{n}\n".encode()))
            for n in range(20)
        ]
    for number, call in enumerate(calls):
        expect(call.result().stdout, f"{number}\n".encode(), "output")


@check("shell")
async def _a_running_command_can_be_talked_to(bench: Bench) -> None:
    box = await bench.box()
    script = "while read line; do echo got $line; done; echo end >&2; exit 3"
    process = await box.start(ExecRequest(argv=("sh", "-c", script)), stdin=True)
    chunks = process.output()
    await process.write(b"one\n")
    expect(await anext(chunks), ("stdout", b"got one\n"), "first answer")
    await process.write(b"two\n")
    expect(await anext(chunks), ("stdout", b"got two\n"), "second answer")
    await process.close_stdin()
    expect([chunk async for chunk in chunks], [("stderr", b"end\n")], "rest")
    expect((await process.wait()).exit_code, 3, "exit code")


@check("shell")
async def _a_signal_reaches_the_whole_tree(bench: Bench) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = await (await bench.box()).start(ExecRequest(argv=("sh", "-c", script)))
    chunks = process.output()
    expect(await anext(chunks), ("stdout", b"ready\n"), "output")
    await process.signal(signal.SIGTERM)
    rest = [chunk async for stream, chunk in chunks if stream == "stdout"]
    expect(rest, [b"caught\n"], "output")
    expect((await process.wait()).exit_code, 9, "exit code")


@check("shell")
async def _unread_output_stops_the_process(bench: Bench) -> None:
    script = "head -c 8000000 /dev/zero; touch /tmp/wrote-it-all"
    request = ExecRequest(argv=("sh", "-c", script), output_limit_bytes=0)
    process = await (await bench.box()).start(request)
    await asyncio.sleep(0.2)
    seen = await bench.shell("test -e /tmp/wrote-it-all")
    expect(seen.exit_code, 1, "whether it wrote all of it unread")
    total = 0
    async for _, chunk in process.output():
        total += len(chunk)
    expect(total, 8_000_000, "bytes that were read")
    await process.wait()


@check("shell")
async def _a_flood_that_is_let_go_of_ends(bench: Bench) -> None:
    flood = ExecRequest(argv=("sh", "-c", "yes"), timeout_seconds=None, output_limit_bytes=0)
    process = await (await bench.box()).start(flood)
    await asyncio.sleep(0.2)
    process.close()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            ended = await process.wait()
    except TimeoutError:
        raise Refuted("it did not end") from None
    expect(ended.exit_code, 128 + signal.SIGKILL, "exit code")


@check("shell")
async def _another_user_is_another_user(bench: Bench) -> None:
    try:
        result = await bench.shell("id -u; id -g; touch /usr/x /etc/x", user="nobody")
    except UnsupportedError as error:
        raise Lacks(str(error)) from None
    expect(result.stdout, b"65534\n65534\n", "ids")
    hold(result.exit_code != 0, "nobody could write where only root may")


@check("shell")
async def _an_unknown_user_is_refused(bench: Bench) -> None:
    await refused(bench.shell("true", user="bobby;tables"), errno.EINVAL)
