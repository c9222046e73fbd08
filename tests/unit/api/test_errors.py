"""One table: every class of the tree has its status, and nothing else is told."""

import httpx2
import pytest

from api_stand_in import Served
from handiwork.api.errors import STATUS, told
from handiwork.model import errors
from handiwork.model.errors import HandiworkError, NotFoundError

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", [kind for kind in TREE if issubclass(kind, HandiworkError)])
def test_every_class_has_a_status(kind: type[HandiworkError]) -> None:
    assert 400 <= STATUS[kind] < 600


def test_an_error_of_ours_is_told() -> None:
    status, body = told(NotFoundError("there is no x"))
    assert (status, body.type, body.message) == (404, "not_found", "there is no x")


def test_a_fault_of_ours_tells_nothing() -> None:
    status, body = told(ValueError("sk-secret in a message"))
    assert (status, body.type) == (500, "internal")
    assert "sk-secret" not in body.message


async def test_a_fault_in_a_route_is_a_500(served: Served, http: httpx2.AsyncClient) -> None:
    served.not_ready = None  # type: ignore[assignment]
    answer = await http.get("/readyz")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "internal"


@pytest.mark.parametrize(
    ("method", "path", "status", "type"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/nowhere", 404, "not_found"),
        ("DELETE", "/api/audit", 405, "request"),
        ("GET", "/api/sandboxes/sbx_none", 404, "not_found"),
        ("GET", "/api/sandboxes?limit=0", 400, "config"),
    ],
)
async def test_one_envelope(
    http: httpx2.AsyncClient, method: str, path: str, status: int, type: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == type
    assert error["message"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"tier":7}', "tier"),
        (b'{"teir":"namespace"}', "teir"),
        (b'{"tier":"docker"}', "tier"),
        (b'{"env":{"A=":"1"}}', "env"),
        (b'{"env":{"A":"\\u0000"}}', "env"),
        (b"{", "truncated"),
        (b"[]", "body"),
    ],
)
async def test_a_bad_body_names_the_field(
    served: Served, http: httpx2.AsyncClient, body: bytes, names: str
) -> None:
    answer = await http.post("/api/sandboxes", content=body)
    assert answer.status_code == 400
    assert names in answer.json()["error"]["message"]
    assert served.sandboxes.live == {}


async def test_a_body_over_the_limit_is_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/sandboxes", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413
