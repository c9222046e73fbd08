"""`fetch` of code through a real proxy to a real TLS upstream: allowed, denied, injected, masked, redirected."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, World, answer, grant, world
from handiwork.model.code import CodeRequest, CodeResult, Language
from handiwork.model.egress import EgressGrant
from handiwork.model.sandbox import SandboxExit, SandboxSpec
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox

OTHER = "evil.example.com"
PYTHON = """
answer = await fetch("https://%s/x", headers={"x-mine": "1"}, json={"a": 1})
[answer.status, answer.ok, (await answer.json())["method"]]
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[IsolateDriver]:
    made = IsolateDriver(tmp_path / "isolates", user_id=1 << 29 if os.geteuid() == 0 else 0)
    yield made
    for sandbox_id in await made.leftovers():
        await made.destroy(sandbox_id)


async def box_with(here: World, driver: IsolateDriver, granted: EgressGrant) -> IsolateSandbox:
    way = await here.open(granted)
    out = SandboxExit(socket_path=str(way.path), ca_certificate="")
    return await driver.create(SandboxSpec(id="sbx_fetch0000000", exit=out))


async def run(box: IsolateSandbox, code: str, language: Language = "javascript") -> CodeResult:
    return await box.run_code(CodeRequest(code=code, language=language))


@pytest.mark.parametrize(
    ("language", "code", "value"),
    [
        (
            "javascript",
            "const r = await fetch('https://%s/x', { method: 'POST', body: 'hi', headers: { 'x-mine': '1' } });"
            " [r.status, r.ok, (await r.json()).method]",
            [200, True, "POST"],
        ),
        ("python", PYTHON, [200, True, "POST"]),
    ],
)
async def test_a_permitted_request_arrives_with_its_secret_and_no_answer_shows_it(
    here: World, driver: IsolateDriver, language: Language, code: str, value: list[object]
) -> None:
    box = await box_with(here, driver, await here.injecting())
    done = await run(box, code % HOST, language)
    assert (done.error, done.value) == (None, value)
    (seen,) = here.upstream.seen
    assert seen.values("authorization") == [f"Bearer {SECRET}"]
    assert seen.values("x-mine") == ["1"]
    echoed = await run(box, f"await (await fetch('https://{HOST}/echo')).text()")
    assert SECRET not in str(echoed.value)
    assert "authorization" in str(echoed.value).lower()
    (record, _) = await here.records(2, allowed=True)
    assert (record.injected, record.status) == (("key",), 200)


async def test_what_is_not_permitted_is_refused_with_the_rule_and_recorded(
    here: World, driver: IsolateDriver
) -> None:
    box = await box_with(here, driver, grant(here.service()))
    done = await run(box, f"const r = await fetch('https://{OTHER}/'); [r.status, await r.text()]")
    assert done.value[0] == 403
    assert "blocked by session:test/default" in done.value[1]
    assert OTHER in done.value[1]
    (record,) = await here.records(1, allowed=False)
    assert record.rules == ("session:test/default",)
    assert here.upstream.seen == []


async def test_a_redirect_is_decided_anew(here: World, driver: IsolateDriver) -> None:
    box = await box_with(here, driver, grant(here.service()))
    head = (
        f"HTTP/1.1 302 Found\r\nlocation: https://{OTHER}/stolen?q=1\r\ncontent-length: 0\r\n\r\n"
    )
    here.upstream.respond = answer(head.encode())
    done = await run(box, f"const r = await fetch('https://{HOST}/go'); [r.status, r.url]")
    assert done.value == [403, f"https://{OTHER}/stolen?q=1"]
    assert len(here.upstream.seen) == 1


async def test_with_the_proxy_gone_nothing_leaves(here: World, driver: IsolateDriver) -> None:
    box = await box_with(here, driver, grant(here.service()))
    assert (await run(box, f"(await fetch('https://{HOST}/')).status")).value == 200
    here.processes[-1].kill()
    await here.processes[-1].wait()
    done = await run(box, f"(await fetch('https://{HOST}/')).status")
    assert done.error is not None
    assert "fetch" in done.error.message
    assert len(here.upstream.seen) == 1


async def test_a_sandbox_without_an_exit_has_none(driver: IsolateDriver) -> None:
    box = await driver.create(SandboxSpec(id="sbx_alone0000000"))
    done = await run(box, "await fetch('https://example.com/')")
    assert done.error is not None
    assert "no way out" in done.error.message
