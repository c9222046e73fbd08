"""A vault's credential through the whole program: a placeholder inside, the value at its host alone."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, call
from egress_world import HOST, TestAuthority, TestUpstream
from generation_taking import make
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.policy import Match, Policy, ServiceRule, ServiceTarget
from handiwork.sandboxes.snapshots import archive
from handiwork.sandboxes.snapshots.generations import Generations
from session_user import User
from uppers import kept_bytes

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
VALUE = "sk-vault-0123456789abcdef"
OTHER = "other.example.org"
SHOW = "printf %s $API_KEY"
ASK = "curl -sS -H \"x-key: $API_KEY\" https://{host}/ -o /dev/null -w '%{{http_code}}'"


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[tuple[TestUpstream, str]]:
    """A TLS server for both hosts, and the authority to trust for it."""
    authority, served = TestAuthority(tmp_path), TestUpstream()
    server = await asyncio.start_server(
        served.serve, "127.0.0.1", 0, ssl=authority.server(HOST, OTHER)
    )
    served.port = server.sockets[0].getsockname()[1]
    yield served, authority.pem
    server.close()


def policy(port: int, anchor: str) -> Policy:
    target = ServiceTarget(name="upstream", address="127.0.0.1", port=port, trust_anchor=anchor)
    rule = ServiceRule(id="both", match=Match(hosts=(HOST, OTHER)), service=target)
    return Policy(name="both", rules=(rule,))


async def begin(
    client: anthropic.AsyncAnthropic, environment_id: str, vaults: list[str], *commands: str
) -> User:
    turns = [{"steps": [call("bash", command=command)]} for command in commands]
    agent = await client.beta.agents.create(
        name="tester", model="scripted", system=json.dumps({"turns": turns}), tools=[TOOLSET]
    )
    session = await client.beta.sessions.create(
        agent=agent.id, environment_id=environment_id, vault_ids=vaults
    )
    return User(client, session.id)


async def snapshot_of(box: Sandbox, directory: Path) -> bytes:
    """Return all that a snapshot holds: what it says of itself, names, what links lead to, contents."""
    taken = await box.snapshot()
    await box.snapshots.export(taken.number, directory / "exported")
    with (directory / "exported").open("rb") as file:
        found = archive.opened(file.fileno(), os.fstat(file.fileno()).st_size)
        generations = Generations(
            found.blobs, found.keys, archive.TENANT, lambda: datetime.now(UTC), os.urandom
        )
        manifest = generations.load(found.sandbox_id, found.number)
        made = make(generations, manifest, directory / "kept")
    pieces = [repr(manifest.head).encode()]
    for one in made.rglob("*"):
        pieces.append(os.fsencode(one))
        if one.is_symlink():
            pieces.append(os.fsencode(one.readlink()))
        elif one.is_file():
            pieces.append(one.read_bytes())
    return b"\0".join(pieces)


async def assert_kept_apart(hands: Handiwork, placeholder: str, directory: Path) -> None:
    """No snapshot has what it was given for today: placeholder, value, authority, policy, way out."""
    boxes = [one for one in await hands.sandboxes.list() if one.record.session_id]
    (box,) = boxes
    done = await box.exec("echo of the guest >note; cat /etc/ssl/certs/ca-certificates.crt")
    authority = done.stdout.rstrip().splitlines()[-4]
    assert len(authority) == 64
    found = await snapshot_of(box, directory)
    assert b"of the guest" in found  # the control: what is kept is seen
    for secret in (placeholder.encode(), VALUE.encode(), authority, HOST.encode(), b"hwph_"):
        assert secret not in found


async def test_a_vaults_credential_from_the_sdk_to_the_upstream(
    tmp_path: Path, upstream: tuple[TestUpstream, str]
) -> None:
    served, anchor = upstream
    config = control_plane_process.SLEEPLESS.replace("1.0", "0.2") + '[egress]\npolicy = "both"\n'
    with control_plane_process.running(tmp_path, config=config) as plane:
        addresses = plane.addresses
        async with (
            Handiwork(socket=plane.socket) as hands,
            anthropic.AsyncAnthropic(
                api_key=plane.brain_key, base_url=addresses["local_brain"]
            ) as client,
        ):
            await hands.policies.put(policy(served.port, anchor))
            vault = await client.beta.vaults.create(display_name="keys")
            credential = await client.beta.vaults.credentials.create(
                vault.id,
                auth={
                    "type": "environment_variable",
                    "secret_name": "API_KEY",
                    "secret_value": VALUE,
                    "networking": {"type": "limited", "allowed_hosts": [HOST]},
                },
            )
            commands = [SHOW, ASK.format(host=HOST), ASK.format(host=OTHER), SHOW, SHOW]
            user = await begin(client, addresses["environment_id"], [vault.id], *commands)
            shown: list[str] = []
            for turn in range(4):
                await user.say()
                shown = [text for text, _ in await user.results(turn + 1)]
                await user.turn_over(turn + 1)
            placeholder = shown[0]
            assert placeholder.startswith("hwph_")
            assert shown == [placeholder, "200", "200", placeholder]
            at_host, elsewhere = served.seen
            assert (at_host.values("host"), at_host.values("x-key")) == ([HOST], [VALUE])
            assert (elsewhere.values("host"), elsewhere.values("x-key")) == ([OTHER], [placeholder])
            await assert_kept_apart(hands, placeholder, tmp_path)

            stranger = await begin(
                client,
                addresses["environment_id"],
                [],
                ASK.format(host=HOST).replace("$API_KEY", placeholder),
            )
            await stranger.say()
            assert await stranger.results(1) == [("403", False)]
            await client.beta.vaults.credentials.archive(credential.id, vault_id=vault.id)
            await asyncio.sleep(0.5)
            await user.say()
            assert (await user.results(5))[4] == ("(no output)", False)
            assert len(served.seen) == 2
        assert VALUE not in plane.log.read_text()
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or VALUE.encode() not in kept_bytes(file)
