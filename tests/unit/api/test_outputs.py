"""What an agent left, over HTTP: listed, and sent as downloads that no browser opens."""

import httpx2
import pytest

from api_stand_in import NOW, Served
from handiwork.model.session import Session, SessionState
from handiwork.sessions.sandbox_request import SandboxRequest


@pytest.fixture
async def session(served: Served) -> Session:
    record = await served.sandboxes.create(SandboxRequest())
    files = served.sandboxes.live[record.id].files
    await files.write("/workspace/outputs/a b/<x>.html", b"<script>")
    await files.write("/workspace/secret", b"x")
    session = Session(
        id="sesn_1",
        environment_id="env_1",
        state=SessionState.SLEEPING,
        sandbox_id=record.id,
        created_at=NOW,
        updated_at=NOW,
    )
    await served.store.sessions.save(session)
    return session


@pytest.mark.usefixtures("session")
async def test_listed_and_downloaded(http: httpx2.AsyncClient) -> None:
    (one,) = (await http.get("/api/sessions/sesn_1/outputs")).json()["data"]
    assert one == {"path": "a b/<x>.html", "size": 8, "mtime_ns": 0}
    answer = await http.get("/api/sessions/sesn_1/outputs/a%20b/%3Cx%3E.html")
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("path", ["none", "%2e%2e/secret", "a%20b/../../secret", "a%20b"])
async def test_what_is_no_output(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.get(f"/api/sessions/sesn_1/outputs/{path}")).status_code == 404


async def test_sessions_that_left_nothing(http: httpx2.AsyncClient, served: Served) -> None:
    await served.store.sessions.save(
        Session(
            id="sesn_2",
            environment_id="env_1",
            state=SessionState.REFUSED,
            created_at=NOW,
            updated_at=NOW,
        )
    )
    assert (await http.get("/api/sessions/sesn_2/outputs")).json()["data"] == []
    assert (await http.get("/api/sessions/sesn_2/outputs/x")).status_code == 404
    assert (await http.get("/api/sessions/none/outputs")).status_code == 404
