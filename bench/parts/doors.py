"""Doors that brains come through: a webhook's answer, and work of one of five environments."""

import asyncio
import base64
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from anthropic import AsyncAnthropic
from standardwebhooks import Webhook

from harness import Bench
from parts.toolcalls import Brain, claimed, control_plane


async def measure_webhooks(bench: Bench, served: Brain, directory: Path) -> None:
    """webhook_answer_ms: a signed delivery sent, until its answer is read, on a warm connection."""
    directory.mkdir(mode=0o711)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    key_file = directory / "webhook-keys"
    key_file.write_text(f"whsec_{key}\n")
    key_file.chmod(0o600)
    settings = f'[webhooks]\nkey_files = ["{key_file}"]\n'
    with control_plane(directory, served, environments=[served.many], settings=settings):
        url = json.loads((directory / "data/addresses.json").read_text())["api"]
        async with httpx2.AsyncClient(base_url=url) as client:
            taken = [await _delivered(client, Webhook(key)) for _ in range(bench.times(200, 40))]
    bench.record("webhook_answer_ms", taken[5:], "ms", scale=1000, slowest_ms=max(taken[5:]) * 1000)


async def _delivered(client: httpx2.AsyncClient, signer: Webhook) -> float:
    await asyncio.sleep(0.02)
    moment, name = datetime.now(UTC), f"msg_{secrets.token_hex(8)}"
    data = {"id": f"sesn_{name}", "type": "session.status_run_started"}
    body = json.dumps({"type": "event", "id": name, "created_at": moment.isoformat(), "data": data})
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signer.sign(name, moment, body),
        "content-type": "application/json",
    }
    before = time.perf_counter()
    answered = await client.post("/webhooks", content=body, headers=headers)
    taken = time.perf_counter() - before
    if answered.status_code != 200 or answered.json()["status"] != "kept":
        raise RuntimeError(f"a webhook was answered {answered.status_code}: {answered.text}")
    return taken


async def measure_five(
    bench: Bench, client: AsyncAnthropic, served: Brain, directory: Path
) -> None:
    """claim_five_environments_ms: work queued in one of five environments that one process serves."""
    directory.mkdir(mode=0o711)
    taken = []
    with control_plane(directory, served, environments=served.five):
        for number in range(bench.times(25, 5)):
            environment = served.five[number % len(served.five)]
            taken.append(await claimed(client, served, environment))
    bench.record("claim_five_environments_ms", taken, "ms", scale=1000)
