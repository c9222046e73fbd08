"""A loopback server of skills and memory stores, as the service speaks: keys, pages, preconditions.

Memory stores take the session's token alone, skills whatever `skill_keys` names.
"""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qs

from answering_server import Answer, Request, Server, error
from handiwork.model.session import WorkItem

KEY = "sk-ant-oat01-environment"
TOKEN = "sk-ant-req-session"
SECRET = base64.urlsafe_b64encode(json.dumps({"sessions_token": TOKEN}).encode()).decode()
WORK = WorkItem(
    id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
)


class ResourcesServer(Server):
    """`skills` are (version id, name, archive) by id; `stores` are memories by store and path."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = self._judge
        self.skill_keys = {KEY, TOKEN}
        self.skills: dict[str, tuple[str, str, bytes]] = {}
        self.stores: dict[str, dict[str, dict[str, Any]]] = {}
        self._count = 0

    def put(self, store_id: str, path: str, content: str) -> dict[str, Any]:
        """Write a memory, as another client does."""
        known = self.stores[store_id].get(path)
        self._count += known is None
        made = {
            "id": known["id"] if known else f"mem_{self._count:04}",
            "type": "memory",
            "path": path,
            "content": content,
            "content_sha256": hashlib.sha256(content.encode()).hexdigest(),
            "memory_store_id": store_id,
        }
        self.stores[store_id][path] = made
        return made

    def _judge(self, request: Request) -> Answer:
        if found := re.fullmatch(r"/v1/skills/([^/]+)/versions/([^/]+)(/content)?", request.path):
            return self._skill(request, *found.groups())
        if found := re.fullmatch(r"/v1/memory_stores/([^/]+)/memories(?:/([^/]+))?", request.path):
            return self._memory(request, *found.groups())
        return error(404)

    def _skill(self, request: Request, skill_id: str, version: str, content: str) -> Answer:
        if request.key not in self.skill_keys:
            return error(403)
        id_, name, archive = self.skills.get(skill_id, ("", "", b""))
        if not id_ or version not in ("latest", id_):
            return error(404)
        if content:
            head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            return head % len(archive) + archive
        return 200, {"id": id_, "type": "skill_version", "skill_id": skill_id, "name": name}

    def _memory(self, request: Request, store_id: str, memory_id: str | None) -> Answer:
        if request.key != TOKEN:
            return error(401)
        store = self.stores.get(store_id)
        if store is None:
            return error(404)
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        if memory_id is None:
            if request.method == "GET":
                return self._listing(store, query)
            if request.body["path"] in store:
                return error(409)
            return self._written(store_id, request.body["path"], request.body["content"])
        one = next((one for one in store.values() if one["id"] == memory_id), None)
        if one is None:
            return error(404)
        if request.method == "GET":
            return 200, one
        if request.method == "DELETE":
            if query.get("expected_content_sha256") not in (None, one["content_sha256"]):
                return error(409)
            del store[one["path"]]
            return 200, {"id": memory_id, "type": "memory_deleted"}
        expected = request.body.get("precondition", {}).get("content_sha256")
        if expected not in (None, one["content_sha256"]):
            return error(409)
        return self._written(store_id, one["path"], request.body["content"])

    def _written(self, store_id: str, path: str, content: str) -> Answer:
        if len(content.encode()) > 102_400:
            return error(413)
        if not path.startswith("/") or "//" in path:
            return error(400)
        return 200, {**self.put(store_id, path, content), "content": None}

    def _listing(self, store: dict[str, Any], query: dict[str, str]) -> Answer:
        full = query.get("view") == "full"
        limit, start = int(query.get("limit", 20)), int(query.get("page", 0))
        if limit > (20 if full else 100):
            return error(400)
        items = [one if full else {**one, "content": None} for _, one in sorted(store.items())]
        more = start + limit < len(items)
        return 200, {
            "data": [{"type": "memory_prefix", "path": "/x/"}, *items[start : start + limit]],
            "next_page": str(start + limit) if more else None,
        }
