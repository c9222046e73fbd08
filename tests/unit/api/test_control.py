"""A change reaches sandboxes and hooks."""

import httpx2

from api_stand_in import Served


async def test_a_change_of_policies_or_secrets_holds_for_hooks_own_requests_too(
    served: Served, http: httpx2.AsyncClient
) -> None:
    await http.put("/api/secrets/key", json={"value": "sk-0123456789", "hosts": ["a.test"]})
    assert (served.hooks.refreshed, served.sandboxes.refreshed) == (1, [""])
    await http.put("/api/policies/web", json={"name": "web", "rules": []})
    assert (served.hooks.refreshed, served.sandboxes.refreshed) == (2, ["", "web"])
    await http.delete("/api/policies/web")
    await http.delete("/api/secrets/key")
    assert served.hooks.refreshed == 4
