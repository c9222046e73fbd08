"""What a session brings along, through the whole program: the official SDK, the local brain, git.

The git server is the dumb transport of a bare repository over TLS, for who shows the credential:
the egress proxy puts it in, and the sandbox never has it.
"""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, call
from control_plane_process import ControlPlane
from egress_world import HOST, TestAuthority, TestUpstream
from handiwork.client.handiwork import Handiwork
from handiwork.model.injection import HeaderInjection
from handiwork.model.policy import Match, Policy, ServiceRule, ServiceTarget
from session_user import User
from session_world import until
from skill_uploads import MANIFEST
from snapshot_contents import contents

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
CREDENTIAL = "git-credential-0123456789abcdef"
CONFIG = (
    control_plane_process.SLEEPLESS.replace("1.0", "0.2")
    + '[egress]\npolicy = "git"\n[staging]\ngit_hosts = ["{host}"]\nfiles_dir = "{files}"\n'
)


def git(*arguments: str, at: Path) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=at, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class GitServer(TestUpstream):
    """Serves the files below a directory to who shows the credential."""

    def __init__(self, root: Path) -> None:
        super().__init__(respond=self._answer)
        self._root = root

    async def _answer(
        self, seen: Any, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = self._root / seen.target.partition("?")[0].lstrip("/")
        status, body = "404 Not Found", b""
        if seen.values("authorization") != [f"Basic {CREDENTIAL}"]:
            status = "401 Unauthorized"
        elif path.is_file():
            status, body = "200 OK", path.read_bytes()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[GitServer, str]]:
    """A repository `team/repo.git` with one commit, served; and the authority to trust for it."""
    work = tmp_path / "work"
    work.mkdir()
    git("init", "--quiet", "--initial-branch=main", at=work)
    (work / "README").write_text("from git\n")
    git("add", "README", at=work)
    git("commit", "--quiet", "-m", "one", at=work)
    (tmp_path / "served/team").mkdir(parents=True)
    git("clone", "--quiet", "--bare", str(work), "../served/team/repo.git", at=work)
    git("update-server-info", at=tmp_path / "served/team/repo.git")
    authority, served = TestAuthority(tmp_path), GitServer(tmp_path / "served")
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=authority.server(HOST))
    served.port = listening.sockets[0].getsockname()[1]
    yield served, authority.pem
    listening.close()


def policy(port: int, anchor: str) -> Policy:
    target = ServiceTarget(name="upstream", address="127.0.0.1", port=port, trust_anchor=anchor)
    inject = (HeaderInjection(header="authorization", value="Basic ${secret:git}"),)
    rule = ServiceRule(id="git", match=Match(hosts=(HOST,)), service=target, inject=inject)
    return Policy(name="git", rules=(rule,))


async def begin(
    client: anthropic.AsyncAnthropic, environment_id: str, *commands: str, **session: Any
) -> User:
    skills = session.pop("skills", [])
    turns = [{"steps": [call("bash", command=command)]} for command in commands]
    agent = await client.beta.agents.create(
        name="tester",
        model="scripted",
        system=json.dumps({"turns": turns}),
        tools=[TOOLSET],
        skills=skills,
    )
    made = await client.beta.sessions.create(
        agent=agent.id, environment_id=environment_id, **session
    )
    return User(client, made.id)


@contextlib.asynccontextmanager
async def program(
    directory: Path, server: tuple[GitServer, str], files: Path | str
) -> AsyncIterator[tuple[ControlPlane, Handiwork, anthropic.AsyncAnthropic]]:
    """The whole program, its policy and secret for the git server, and clients of both sides."""
    served, anchor = server
    config = CONFIG.format(host=HOST, files=files)
    with control_plane_process.running(directory, config=config) as plane:
        async with (
            Handiwork(socket=plane.socket) as hands,
            anthropic.AsyncAnthropic(
                api_key=plane.brain_key, base_url=plane.addresses["local_brain"]
            ) as client,
        ):
            await hands.secrets.put("git", CREDENTIAL, hosts=[HOST])
            await hands.policies.put(policy(served.port, anchor))
            yield plane, hands, client


async def begin_with_everything(
    plane: ControlPlane, client: anthropic.AsyncAnthropic, store_id: str
) -> User:
    memories = client.beta.memory_stores.memories
    await memories.create(store_id, path="/kept.md", content="remember\n")
    skill = await client.beta.skills.create(files=[("demo-skill/SKILL.md", MANIFEST.encode())])
    return await begin(
        client,
        plane.addresses["environment_id"],
        "cat repo/README data/in.csv skills/demo-skill/SKILL.md; cd /mnt/memory/*;"
        " cat kept.md; echo new > added.md; mkdir -p /workspace/outputs;"
        " echo done > /workspace/outputs/report.txt; env; cat /workspace/repo/.git/config",
        "cat /mnt/memory/*/*.md; echo mine > /workspace/repo/README; ls /workspace/skills",
        "cat /workspace/repo/README",
        skills=[{"type": "custom", "skill_id": skill.id}],
        resources=[{"type": "memory_store", "memory_store_id": store_id}],
        metadata={
            "handiwork.git.repo": f"https://{HOST}/team/repo.git#main",
            "handiwork.file.data/in.csv": "in.csv",
        },
    )


async def test_everything_is_there_and_comes_back(
    tmp_path: Path, server: tuple[GitServer, str]
) -> None:
    served, _ = server
    (tmp_path / "files").mkdir()
    (tmp_path / "files/in.csv").write_text("1,2\n")
    async with program(tmp_path, server, tmp_path / "files") as (plane, hands, client):
        store = await client.beta.memory_stores.create(name="Notes")
        user = await begin_with_everything(plane, client, store.id)
        await user.say()
        ((first, _),) = await user.results(1)
        for expected in ("from git\n", "1,2\n", "Shows how.", "remember\n"):
            assert expected in first
        assert CREDENTIAL not in first
        assert served.seen
        await assert_kept_apart(hands, tmp_path)
        memories = client.beta.memory_stores.memories

        async def written() -> bool:
            return {one.path async for one in memories.list(store.id)} == {
                "/kept.md",
                "/added.md",
            }

        await until(written, 30)
        await until(lambda: _sleeps(hands, user.id), 30)
        (output,) = await hands.sessions.outputs(user.id)
        assert output.path == "report.txt"
        await hands.sessions.download_outputs(user.id, tmp_path / "copied")
        assert (tmp_path / "copied/report.txt").read_text() == "done\n"
        assert await _sleeps(hands, user.id)

        await memories.create(store.id, path="/theirs.md", content="from elsewhere\n")
        for turn in (2, 3):
            await user.say()
            await user.results(turn)
        second, third = [text for text, _ in await user.results(3)][1:]
        for expected in ("remember\n", "new\n", "from elsewhere\n", "demo-skill"):
            assert expected in second
        assert third.startswith("mine")
        assert CREDENTIAL not in plane.log.read_text()


async def assert_kept_apart(hands: Handiwork, directory: Path) -> None:
    """A snapshot has neither a memory store nor a skill: those of its day are there when it is made again."""
    (box,) = await hands.sandboxes.list()
    found = await contents(box, directory)
    for kept in (b"from git\n", b"1,2\n", b"report.txt"):
        assert kept in found
    for other in (b"Shows how.", b"SKILL.md", b"remember\n", b"kept.md", CREDENTIAL.encode()):
        assert other not in found, other


async def _sleeps(hands: Handiwork, session_id: str) -> bool:
    session = await hands.sessions.get(session_id)
    box = await hands.sandboxes.get(session.sandbox_id) if session.sandbox_id else None
    return (
        session.state.value == "sleeping"
        and box is not None
        and box.record.state.value == "sleeping"
    )


REFUSED = [
    ({"handiwork.git.repo": "https://evil.example.org/x"}, "staging.git_hosts does not list"),
    ({"handiwork.git.repo": f"https://{HOST}/team/none.git"}, "git cannot clone"),
    ({"handiwork.git.repo": f"https://{HOST}/team/repo.git#none"}, "git cannot clone"),
]


async def test_what_cannot_be_staged_is_said(tmp_path: Path, server: tuple[GitServer, str]) -> None:
    async with program(tmp_path, server, "") as (plane, hands, client):
        for metadata, reason in REFUSED:
            user = await begin(client, plane.addresses["environment_id"], "true", metadata=metadata)
            await user.say()
            ((text, is_error),) = await user.results(1)
            assert is_error
            assert reason in text
            session = await hands.sessions.get(user.id)
            assert session.state.value == "refused"
            assert [one.kind.value for one in session.waiting] == ["staging"]
            assert await hands.sandboxes.list() == []
