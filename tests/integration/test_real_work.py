"""What agents are for, in every tier: projects built and tested, packages installed, servers run.

A real control plane; the agent's own tools, called by the local brain; packages of the registries that
this host's own clients ask, through the egress proxy, by a policy that permits those alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import registries
from handiwork.model.audit import AuditRecord
from handiwork.sandboxes.gvisor.driver import find_runsc
from microvm_world import kernel_dir, needs_kernel
from workplace import WITHOUT_ROOT, Job, Steps, Workplace, bash, turn, use, write

TIERS = [
    "namespace",
    pytest.param(
        "gvisor", marks=pytest.mark.skipif(find_runsc("") is None, reason="there is no runsc here")
    ),
    pytest.param("microvm", marks=needs_kernel),
]
SECONDS = 1500.0
"""What a turn may take where a processor is emulated, and busy besides."""
CONFIG = """
[sandbox]
tier = "{tier}"
[sandbox.microvm]
acceleration = "tcg"
kernel_dir = "{kernel_dir}"
[sessions]
idle_seconds = 1.0
lease_seconds = 10
"""
C_PROJECT = {
    "stack/Makefile": "CFLAGS = -O1 -Wall -Wextra -Werror\n"
    "test: check\n\t./check\n"
    "check: check.o stack.o\n\t$(CC) -o $@ $^\n"
    "check.o stack.o: stack.h\n"
    ".PHONY: test\n",
    "stack/stack.h": "int push(int value);\nint pop(void);\n",
    "stack/stack.c": '#include "stack.h"\n'
    "static int values[8], depth;\n"
    "int push(int value)\n{\n\tif (depth > 8)\n\t\treturn -1;\n"
    "\tvalues[depth++] = value;\n\treturn 0;\n}\n"
    "int pop(void)\n{\n\treturn depth ? values[--depth] : -1;\n}\n",
    "stack/check.c": '#include "stack.h"\n#include <stdio.h>\n'
    "int main(void)\n{\n\tint taken = 0;\n\twhile (taken < 100 && push(taken) == 0)\n\t\ttaken++;\n"
    '\tprintf("%d taken, %d on top\\n", taken, pop());\n\treturn taken != 8;\n}\n',
}
PYTHON_PROJECT = {
    "shop/prices.py": "def total(cents, percent_off=0):\n"
    "    return sum(cents) * (100 - percent_off) // 100\n",
    "shop/test_prices.py": "import unittest\n\nfrom prices import total\n\n\n"
    "class Prices(unittest.TestCase):\n"
    "    def test_sum(self):\n        self.assertEqual(total([250, 150]), 400)\n\n"
    "    def test_discount(self):\n        self.assertEqual(total([250, 150], 25), 300)\n",
}
FETCH = (
    "python3 -c 'import urllib.request as r;"
    ' print(r.urlopen("http://127.0.0.1:8000/prices.py").status)\''
)
AGAIN = (
    "cd /workspace && touch stack/stack.c && make -C stack test"
    " && cd shop && ../venv/bin/python -m unittest"
)
"""Builds and tests again, with what was made before."""


def build(venv: str = "python3 -m venv") -> Steps:
    """Return the calls that write two projects and get them to pass: the first is wrong at first."""
    good, bad = "if (depth >= 8)", "if (depth > 8)"
    return [
        *write(C_PROJECT),
        *bash("make -C stack test", fails=True),
        *use("edit", file_path="stack/stack.c", old_string=bad, new_string=good),
        *bash("make -C stack test"),
        *write(PYTHON_PROJECT),
        *bash(f"{venv} venv"),
        *bash("cd /workspace/shop && ../venv/bin/python -m unittest -v"),
    ]


def built(results: list[str]) -> None:
    """Say whether both projects were built, found wrong where they are, and right in the end."""
    assert len(results) == len(C_PROJECT) + len(PYTHON_PROJECT) + 5, results
    wrong, _, right = results[len(C_PROJECT) :][:3]
    assert "9 taken" in wrong, results
    assert "8 taken, 7 on top" in right, results
    assert "Ran 2 tests" in results[-1], results
    assert results[-1].rstrip().endswith("OK"), results


SERVE = [
    *bash("cd /workspace/shop && python3 -m http.server 8000 >../server.log 2>&1 &"),
    *bash(f"for n in $(seq 100); do {FETCH} && break; sleep 0.5; done"),
]


def cut_short(command: str) -> Steps:
    """Return a call that does it and is running when all is killed, and one that does it again."""
    rest = "sync && echo on >/workspace/running && sleep 3600"
    return [*bash(f"{command} && {rest}", fails=True), *bash(command)]


async def is_kept(place: Workplace, job: Job, says: str, seconds: float) -> None:
    """Sleep and wake, then kill and start again: what was made is there. Two turns are left to it."""
    await job.until_asleep(seconds)
    [again] = await job.turn(seconds)
    assert says in again, again
    await job.begin_turn()
    await job.until_file("/workspace/running", seconds)
    await place.kill()
    results = await job.end_turn(seconds)
    assert len(results) == 2, results
    assert "interrupted by a restart" in results[0]
    assert says in results[1], results


def work(steps: Steps, again: str) -> list[dict[str, object]]:
    """Return the turns that make something and then twice prove it to be there."""
    return [turn(steps), turn(bash(again)), turn(cut_short(again))]


async def projects(place: Workplace, steps: Steps, seconds: float, **settings: Any) -> None:
    """Build, test, serve; then find it all again."""
    job = await place.begin(work([*steps, *SERVE], AGAIN), **settings)
    *results, _, status = await job.turn(seconds)
    built(results)
    assert status.endswith("200"), status
    await is_kept(place, job, "8 taken, 7 on top", seconds)


@pytest.mark.timeout(300)
async def test_projects_are_built_tested_served_and_kept(tmp_path: Path) -> None:
    """On this host's own /usr, as whoever runs the tests."""
    async with Workplace(tmp_path, CONFIG.format(tier="namespace", kernel_dir="/")) as place:
        await projects(place, build("python3 -m venv --without-pip"), 120)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every control plane of this module has its data, and so the image that is built once."""
    return tmp_path_factory.mktemp("work")


@asynccontextmanager
async def working(tier: str, directory: Path) -> AsyncIterator[Workplace]:
    """Yield a workplace that has the tier, and the image that the product's own recipe makes."""
    async with Workplace(directory, CONFIG.format(tier=tier, kernel_dir=kernel_dir())) as place:
        if all("default" not in one.names for one in await place.hands.images.list()):
            recipe = files("handiwork").joinpath("recipes/default.toml").read_bytes()
            await place.hands.images.build_recipe("default", recipe)
        yield place


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("tier", TIERS)
async def test_projects_are_built_tested_served_and_kept_in(tier: str, directory: Path) -> None:
    venv = "python3 -m venv --without-pip" if tier == "microvm" else "python3 -m venv"
    async with working(tier, directory) as place:
        await projects(place, build(venv), SECONDS, tier=tier, image="default", size="small")


def installing(client: str, tier: str, url: str) -> tuple[Steps, str, str]:
    """Return the calls that install a package, the command that uses it, and what that says.

    Where the processor is emulated, the smallest will do; elsewhere some have dependencies, and
    scripts that make groups and give files away.
    """
    small = tier == "microvm"
    if client == "pip":
        wanted = f"install -q --no-cache-dir --index-url {url} {'iniconfig' if small else 'pytest'}"
        outside = f"python3 -m venv --without-pip venv && python3 -m pip --python venv {wanted}"
        inside = f"python3 -m venv venv && venv/bin/pip {wanted}"
        says = 'import importlib.metadata as m; print(m.metadata("iniconfig")["Name"])'
        return bash(outside if small else inside), f"venv/bin/python -c '{says}'", "iniconfig"
    if client == "npm":
        npm = f"npm install --no-audit --no-fund --registry {url} ms"
        says = 'console.log(require("ms")("2 days"))'
        begin = "echo '{}' >package.json" if small else "npm init -y >/dev/null"
        return bash(f"{begin} && {npm}"), f"node -e '{says}'", "172800000"
    package = "hello" if small else "hello cron"
    apt = f"apt-get -q update && apt-get -q -y --no-install-recommends install {package}"
    return bash(apt), "dpkg --audit && hello", "Hello, world!"


def reached(client: str) -> registries.Registry:
    """Return the registry of a client; skip by name where this host does not reach it."""
    found = registries.registry(client)
    if found.missing:
        pytest.skip(found.missing)
    return found


async def audited(place: Workplace, session_id: str) -> Sequence[AuditRecord]:
    """Return what left and what was refused, once a refusal is among it: it is told a moment later."""
    for _ in range(100):
        past = await place.hands.audit.query(session_id=session_id, limit=1000)
        if any(not one.allowed for one in past):
            break
        await asyncio.sleep(0.05)
    return past


async def packages(place: Workplace, found: registries.Registry, tier: str, image: str) -> None:
    """Install from the registry, and from nowhere else; then find what was installed again."""
    policy = registries.policy(found.client, [found])
    await place.hands.policies.put(policy)
    steps, command, says = installing(found.client, tier, found.url)
    post = f"curl -sS -o /dev/null -w '%{{http_code}}' -X POST {min(found.places)}/"
    turns = work([*steps, *bash(command), *bash(post)], command)
    job = await place.begin(turns, tier=tier, image=image, size="small", policy=policy.name)
    results = await job.turn(SECONDS)
    assert len(results) == 3, results
    assert says in results[1], results
    assert results[2] == "403", results
    past = await audited(place, job.id)
    assert {f"{one.scheme}://{one.host}" for one in past if one.allowed} == found.places
    assert [(one.method, one.path) for one in past if not one.allowed] == [("POST", "/")]
    await is_kept(place, job, says, SECONDS)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("client", ["pip", "npm", "apt"])
@pytest.mark.parametrize("tier", TIERS)
async def test_packages_come_from_the_registry_that_policy_permits(
    tier: str, client: str, directory: Path
) -> None:
    found = reached(client)
    async with working(tier, directory) as place:
        await packages(place, found, tier, "default")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", ["pip", "npm"])
async def test_without_root_packages_come_to_the_host_image(client: str, tmp_path: Path) -> None:
    """An ordinary user's sandboxes, with this host's own Python and Node."""
    found = reached(client)
    config = CONFIG.format(tier="namespace", kernel_dir="/")
    async with Workplace(tmp_path, config, through=WITHOUT_ROOT) as place:
        async with await place.hands.sandboxes.create() as box:
            told = await box.exec("cat /proc/self/uid_map")
            assert told.stdout.split()[2] == b"1", "control: not root, which has 65,536 ids"
        await packages(place, found, "namespace", "host")
