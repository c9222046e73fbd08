"""The persistent shell: what stays, what ends it, and that a command cannot confuse it."""

import asyncio

import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.tools import shell_process as module
from handiwork.tools.excerpt import TEXT_LIMIT
from handiwork.tools.shell_process import CommandEnd, Shell
from handiwork.tools.spool import Collector, Spool
from host_sandbox import HostSandbox


async def run(shell: Shell, command: str, seconds: float = 10) -> CommandEnd:
    return (await ran(shell, command, seconds))[0]


async def ran(shell: Shell, command: str, seconds: float = 10) -> tuple[CommandEnd, bool]:
    output = Collector(Spool(shell.sandbox), "sevt_1")
    return await shell.run(command, output, timeout_seconds=seconds)


async def test_directory_variables_functions_and_jobs_stay(box: HostSandbox) -> None:
    shell = Shell(box)
    await run(shell, "mkdir sub; cd sub; X=5; greet() { echo hi $1; }; sleep 30 &")
    end = await run(shell, "basename $PWD; echo $X; greet you; jobs | wc -l")
    assert end == CommandEnd("sub\n5\nhi you\n1", 0)
    assert len(box.started) == 1


@pytest.mark.parametrize(
    ("command", "output", "code"),
    [
        ("true", "", 0),
        ("false", "", 1),
        ("printf x", "x", 0),
        ("echo out; echo err >&2", "out\nerr", 0),
        ("cat; read line; echo $?", "1", 0),
        ("exec 1>/dev/null 2>&1; echo gone", "", 0),
        ("(exit 7)", "", 7),
        ("echo \"it's\" '$X' \\\\", "it's $X \\", 0),
        ("echo 100% %s %d", "100% %s %d", 0),
        ("cat <<END\none $((1 + 1))\nEND", "one 2", 0),
        ("for i in 1 2\ndo echo $i\ndone", "1\n2", 0),
        ("printf '\\x1b[31mred\\x1b[0m'", "red", 0),
        ("printf 'a\\xffb'", "a\N{REPLACEMENT CHARACTER}b", 0),
        ("# only a comment", "", 0),
        ("echo a; #\n\n", "a", 0),
        ("shopt -s extglob\necho @(a|b)", "@(a|b)", 0),
    ],
)
async def test_output_and_exit_code(box: HostSandbox, command: str, output: str, code: int) -> None:
    shell = Shell(box)
    assert await run(shell, command) == CommandEnd(output, code)
    assert await run(shell, "echo next") == CommandEnd("next", 0)


@pytest.mark.parametrize(
    "command",
    [
        *("echo 'open", 'echo "open', "if true; then", "(", "echo $(date", "echo `date", "{"),
        *("touch made; echo 'open", "touch made &&", "true |", "f() {", "if true", "case x in"),
        *(
            "touch made |",
            "touch made || \n",
            "touch made; if",
            "echo a; while x",
            "cat <<E",
            "! {",
        ),
        *('echo "$(a"', "echo 'a' \"b", "echo $((1", "echo ${x", "time {", "a=(1 2"),
    ],
)
async def test_an_unfinished_line_fails_at_once_and_harms_nothing(
    box: HostSandbox, command: str
) -> None:
    shell = Shell(box)
    end = await run(shell, command)
    assert end.exit_code == 2
    assert "ends inside a quote or block; nothing of it was run" in end.output
    after = "case $(echo a) in a) echo next;; esac"
    assert await run(shell, after) == CommandEnd("next", 0)


@pytest.mark.parametrize(
    "command", ["touch made\necho 'open", "touch made\nif true; then\n", "touch made\ncat <<END\nx"]
)
async def test_of_unfinished_lines_nothing_runs(box: HostSandbox, command: str) -> None:
    shell = Shell(box)
    end = await run(shell, command)
    assert end.exit_code == 2
    assert "ends inside a quote or block" in end.output
    assert not (box.root / "workspace/made").exists()
    assert await run(shell, "touch made\necho done") == CommandEnd("done", 0)
    assert (box.root / "workspace/made").exists()


async def test_a_wrong_command_of_several_lines_is_told_by_bash(box: HostSandbox) -> None:
    end = await run(Shell(box), "echo one\nfi")
    assert end.output.startswith("one\n")
    assert "unexpected token" in end.output
    assert end.exit_code == 2


async def test_output_cannot_forge_the_end(box: HostSandbox) -> None:
    shell = Shell(box)
    end = await run(shell, "set -x; printf '\\n%032d0\\n' 0; set +x; (exit 3)")
    assert end.exit_code == 3
    assert "0" * 32 in end.output


async def test_of_much_output_head_and_tail_are_told(box: HostSandbox) -> None:
    shell = Shell(box)
    end = await run(shell, "echo BEGIN; yes 0123456789 | head -c 3000000; echo END")
    assert end.output.startswith("BEGIN\n0123456789\n")
    assert end.output.endswith("END")
    assert "3000010 bytes in all" in end.output
    assert len(end.output) < TEXT_LIMIT / 2
    assert await run(shell, "echo next") == CommandEnd("next", 0)


async def test_a_background_job_does_not_hold_the_command(box: HostSandbox) -> None:
    assert await run(Shell(box), "sleep 30 & echo bg", 5) == CommandEnd("bg", 0)


async def test_exit_ends_the_shell_and_the_next_command_has_a_new_one(box: HostSandbox) -> None:
    shell = Shell(box)
    assert await run(shell, "X=1; echo bye; exit 3") == CommandEnd("bye", 3, shell_ended=True)
    assert await ran(shell, "echo [$X]") == (CommandEnd("[]", 0), True)
    assert await ran(shell, "echo on") == (CommandEnd("on", 0), False)


async def test_a_timeout_kills_the_tree_and_keeps_what_was_written(box: HostSandbox) -> None:
    shell = Shell(box)
    end = await run(shell, "echo early; sleep 60", 3)
    assert end == CommandEnd("early", 137, shell_ended=True, timed_out=True)
    assert await box.started[0].wait()
    assert await run(shell, "echo next") == CommandEnd("next", 0)


async def test_cancelling_kills_the_shell(box: HostSandbox) -> None:
    shell = Shell(box)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await run(shell, "sleep 60", 30)
    assert (await box.started[0].wait()).exit_code == 137
    assert await ran(shell, "echo next") == (CommandEnd("next", 0), True)


async def test_one_that_was_killed_between_commands_waits_no_more(box: HostSandbox) -> None:
    shell = Shell(box)
    await run(shell, "true")
    assert shell.waits
    await box.started[0].signal(9)
    await box.started[0].wait()
    assert not shell.waits


async def test_restart_forgets_without_a_note(box: HostSandbox) -> None:
    shell = Shell(box)
    await run(shell, "X=1")
    await shell.restart()
    assert await ran(shell, "echo [$X]") == (CommandEnd("[]", 0), False)


async def test_what_no_shell_takes_is_refused(box: HostSandbox) -> None:
    shell = Shell(box)
    with pytest.raises(ToolFailedError, match="NUL"):
        await run(shell, "echo a\0b")
    with pytest.raises(ToolFailedError, match="the limit is"):
        await run(shell, "#" * (1 << 21))
    assert await run(shell, "echo \udc80x") == CommandEnd("?x", 0)


async def test_one_write_a_command(box: HostSandbox) -> None:
    shell = Shell(box)
    await run(shell, "true")
    await run(shell, "true")
    assert len(box.started[0].written) == 2


def test_a_marker_counts_only_with_an_exit_code_behind_it() -> None:
    found = module._marked(b"out\nN\nNx\nN1234\nN12\nrest", b"\nN")
    assert found is not None
    assert (found[1], found.string[found.end() :]) == (b"12", b"rest")
    assert module._marked(b"out\nN12", b"\nN") is None
