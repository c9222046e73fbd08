"""Webhooks of a local brain as `handiwork up` runs it: by the proxy, or to hosts of the operator's."""

import asyncio
from pathlib import Path

import anthropic
import pytest

import control_plane_process
from brain_process import TOOLSET, script
from handiwork.client.handiwork import Handiwork
from session_user import User
from webhook_receiver import receiving

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
CONFIG = control_plane_process.SLEEPLESS + '[local_brain]\nwebhook_hosts = ["127.0.0.1"]\n'


async def endpoint(client: anthropic.AsyncAnthropic, url: str) -> None:
    body = {"url": url, "event_types": ["session.status_idled"]}
    await client.post("/v1/webhook_endpoints", cast_to=object, body=body)


async def test_an_endpoint_is_called_through_the_proxy_unless_the_operator_wrote_it_down(
    tmp_path: Path,
) -> None:
    with control_plane_process.running(tmp_path, config=CONFIG) as plane:
        async with (
            receiving(200) as receiver,
            Handiwork(socket=plane.socket) as hands,
            anthropic.AsyncAnthropic(
                api_key=plane.brain_key, base_url=plane.addresses["local_brain"]
            ) as client,
        ):
            for refused in ("http://127.0.0.2/", "http://hooks.example.org/"):
                with pytest.raises(anthropic.BadRequestError, match="webhook_hosts"):
                    await endpoint(client, refused)
            await endpoint(client, receiver.url)
            await endpoint(client, "https://169.254.169.254/latest")
            await endpoint(client, "https://127.0.0.2/hook")
            agent = await client.beta.agents.create(
                name="tester", model="scripted", system=script({"say": "hi"}), tools=[TOOLSET]
            )
            session = await client.beta.sessions.create(
                agent=agent.id, environment_id=plane.addresses["environment_id"]
            )
            user = User(client, session.id)
            await user.say()
            await receiver.heard(1)
            async with asyncio.timeout(20):
                refused_hosts: set[str] = set()
                while len(refused_hosts) < 2:
                    await asyncio.sleep(0.2)
                    records = await hands.audit.query(allowed=False)
                    refused_hosts = {r.host for r in records if r.binding == "local-brain"}
            assert refused_hosts == {"169.254.169.254", "127.0.0.2"}
