"""Who watches a disk: no count holds up its end, and one that never succeeds ends the sandbox."""

import subprocess
import time
from pathlib import Path

import pytest

GUEST = Path(__file__).parents[3] / "guest"
HARNESS = r"""
#define _GNU_SOURCE
#include "watchman.h"
#include "fatal.h"
#include "users.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *how;

/* Of an ordinary user's launcher, whoever runs the test. */
uid_t geteuid(void) { return 1000; }

void users_enter(int namespaces)
{
    (void)namespaces;
    if (!strcmp(how, "barred"))
        fatal_because("unshare", "No space left on device", EXIT_LAUNCH_FAILED);
}

bool weight_is_over(const struct weight *found, const struct weight *most)
{
    return found->bytes > most->bytes;
}

static long weighed(void)
{
    int fd = open("weighed", O_CREAT | O_APPEND | O_WRONLY, 0600);
    return write(fd, "", 1) == 1 ? (long)lseek(fd, 0, SEEK_END) : 0;
}

bool weigh(int directory, const struct weight *most, struct weight *found)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    dprintf(STDOUT_FILENO, "%s %lu\n", how, files.rlim_cur);
    (void)directory, (void)most, (void)found;
    if (!strcmp(how, "dies"))
        raise(SIGKILL);
    if (!strcmp(how, "hangs") || (!strcmp(how, "slows") && weighed() > WATCHED_PLACES))
        pause();
    return true;
}

/* HOW STATE SECONDS-THE-AGENT-LIVES */
int main(int argc, char **argv)
{
    struct watchman watchman;
    struct options options = {.state = argv[2], .watched_mib = 64};
    int status;
    (void)argc;
    how = argv[1];
    struct rlimit few = {64, 4096};
    setrlimit(RLIMIT_NOFILE, &few);
    int agent = fork();
    if (!agent) {
        sleep((unsigned)atoi(argv[3]));
        _exit(7);
    }
    watchman_open(&watchman, &options, agent);
    rename("upper", "elsewhere"); /* as who claims it gives it another name */
    watchman_stay(&watchman);
    waitpid(agent, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
"""
QUICK = {"FIRST_MS = 1000": "FIRST_MS = 20", "QUICK_MS = 1000": "QUICK_MS = 20"}
QUICK |= {"SLOW_MS = 4000": "SLOW_MS = 20"}
LATE = {"COUNT_MS = 300000": "COUNT_MS = 50"}


@pytest.fixture
def watch(tmp_path):
    """How the agent ended, how often was counted, what was said, and how long it took."""
    (tmp_path / "state/upper").mkdir(parents=True)
    (tmp_path / "state/work").mkdir()

    def run(how, agent_seconds, changes=QUICK):
        source = (GUEST / "watchman.c").read_text()
        for old, new in changes.items():
            assert source.count(old) == 1
            source = source.replace(old, new)
        (tmp_path / "watchman.c").write_text(source)
        (tmp_path / "main.c").write_text(HARNESS)
        program = tmp_path / "watch"
        files = [tmp_path / "main.c", tmp_path / "watchman.c", GUEST / "fatal.c"]
        subprocess.run(["cc", "-std=gnu11", f"-I{GUEST}", "-o", program, *files], check=True)
        began = time.monotonic()
        argv = [program, how, tmp_path / "state", str(agent_seconds)]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=50, cwd=tmp_path / "state", check=False
        )
        return done.returncode, done.stdout.splitlines(), done.stderr, time.monotonic() - began

    return run


def test_a_count_does_not_hold_up_the_end(watch):
    code, counts, said, seconds = watch("hangs", 1)
    assert (code, len(counts), said) == (7, 1, "")
    assert seconds < 20


def test_it_counts_where_the_directory_was_before_it_was_renamed(watch):
    code, counts, said, _ = watch("counts", 1)
    assert (code, said) == (7, "")
    assert counts[0] == "counts 2112"


def test_the_reason_why_nothing_is_counted_is_told_once_and_last(watch):
    code, _, said, _ = watch("barred", 40)
    why = "its files cannot be counted in time: unshare: No space left on device"
    assert (code, said) == (137, f"handiwork-guest: disk: {why}\n")


RETRIED = (
    QUICK | LATE | {"RETRY_MS = 60000": "RETRY_MS = 20", "SELDOM_MS = 30000": "SELDOM_MS = 20"}
)


def test_counts_that_become_late_end_the_agent_by_time(watch):
    """However many more there might be: each may take minutes."""
    many = {"FAILURES_MAX = 8": "FAILURES_MAX = 100000", "FAILING_MS = 900000": "FAILING_MS = 1000"}
    code, counts, said, _ = watch("slows", 40, RETRIED | many)
    assert (code, said) == (137, "handiwork-guest: disk: its files cannot be counted in time\n")
    assert len(counts) < 50


def test_one_that_was_late_is_tried_again_before_ten_times_as_long(watch):
    long = {"REST_TIMES = 10": "REST_TIMES = 200", "COUNT_MS = 300000": "COUNT_MS = 500"}
    assert watch("slows", 40, RETRIED | long)[0] == 137


@pytest.mark.parametrize(("how", "changes"), [("dies", QUICK), ("hangs", QUICK | LATE)])
def test_what_cannot_be_counted_ends_the_agent(watch, how, changes):
    code, counts, said, _ = watch(how, 40, changes)
    assert (code, len(counts)) == (137, 8)
    assert said == "handiwork-guest: disk: its files cannot be counted in time\n"
