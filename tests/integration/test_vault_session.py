"""A vault's credential through the whole program: a placeholder inside, the value at its host alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, call
from egress_world import HOST, TestAuthority, TestUpstream
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import Sandbox
from handiwork.model.policy import Match, Policy, ServiceRule, ServiceTarget
from handiwork.tools.toolset import stock
from session_user import User
from snapshot_contents import contents
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


async def vault_with_key(client: anthropic.AsyncAnthropic) -> tuple[str, str]:
    """Return a credential and its vault: the value is for one host."""
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
    return credential.id, vault.id


async def assert_kept_apart(hands: Handiwork, placeholder: str, directory: Path) -> None:
    """No snapshot has what it was given for today: placeholder, value, authority, policy, way out."""
    boxes = [one for one in await hands.sandboxes.list() if one.record.session_id]
    (box,) = boxes
    done = await box.exec("echo of the guest >note; cat /etc/ssl/certs/ca-certificates.crt")
    authority = done.stdout.rstrip().splitlines()[-4]
    assert len(authority) == 64
    secrets = (placeholder.encode(), VALUE.encode(), authority, HOST.encode(), b"hwph_")
    found = await contents(box, directory)
    assert b"of the guest" in found
    assert [one for one in secrets if one in found] == []
    await assert_found_where_planted(box, secrets, directory)


async def assert_found_where_planted(
    box: Sandbox, secrets: tuple[bytes, ...], directory: Path
) -> None:
    """The control: what a guest itself writes down of them is kept as its own, and seen in a snapshot."""
    planted = b"x" * 4095 + b"\n".join(secrets)
    await box.files.write("/workspace/planted", planted)
    found = await contents(box, directory)
    await box.files.remove("/workspace/planted")
    assert [one for one in secrets if one not in found] == []


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
            credential, vault = await vault_with_key(client)
            commands = [SHOW, ASK.format(host=HOST), ASK.format(host=OTHER), SHOW, SHOW]
            user = await begin(client, addresses["environment_id"], [vault], *commands)
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
            await client.beta.vaults.credentials.archive(credential, vault_id=vault)
            await asyncio.sleep(0.5)
            await user.say()
            assert (await user.results(5))[4] == ("(no output)", False)
            assert len(served.seen) == 2
        assert VALUE not in plane.log.read_text()
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or VALUE.encode() not in kept_bytes(file)


async def test_no_snapshot_of_an_isolate_has_what_its_code_was_given(tmp_path: Path) -> None:
    """Its cells know the placeholder of their environment; its files are all that is kept."""
    execute = stock().get("execute")
    assert execute is not None
    tool = {"name": "execute", "description": "runs code", "input_schema": execute.schema}
    code = "await workspace.write('/workspace/note', 'of the guest'); process.env.API_KEY"
    turns = [{"steps": [call("execute", code=code)]}]
    with control_plane_process.running(tmp_path) as plane:
        async with (
            Handiwork(socket=plane.socket) as hands,
            anthropic.AsyncAnthropic(
                api_key=plane.brain_key, base_url=plane.addresses["local_brain"]
            ) as client,
        ):
            _, vault = await vault_with_key(client)
            agent = await client.beta.agents.create(
                name="isolated",
                model="scripted",
                system=json.dumps({"turns": turns}),
                tools=[{"type": "custom", **tool}],
            )
            await hands.agents.put(agent.id, tier="isolate")
            session = await client.beta.sessions.create(
                agent=agent.id,
                environment_id=plane.addresses["environment_id"],
                vault_ids=[vault],
            )
            user = User(client, session.id)
            await user.say()
            await user.turn_over()
            (result,) = await user.events("user.custom_tool_result")
            placeholder = json.loads(result.content[0].text)["result"]
            assert placeholder.startswith("hwph_")
            (box,) = [one for one in await hands.sandboxes.list() if one.record.session_id]
            assert box.record.tier == "isolate"
            secrets = (placeholder.encode(), VALUE.encode(), HOST.encode(), b"hwph_")
            found = await contents(box, tmp_path)
            assert b"of the guest" in found
            assert [one for one in secrets if one in found] == []
            await assert_found_where_planted(box, secrets, tmp_path)
