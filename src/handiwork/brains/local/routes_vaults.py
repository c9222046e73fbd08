"""Routes of vaults and credentials, and of the sealed credentials of one session."""

from litestar import delete, get, post

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.keys import Kind
from handiwork.brains.local.paging import page
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    name_of,
    query_of,
    services_of,
    session_of,
)
from handiwork.brains.local.vault_shapes import (
    CredentialCreate,
    CredentialUpdate,
    VaultCreate,
    VaultUpdate,
)

VAULT = "/v1/vaults/{vault_id:str}"
CREDENTIAL = f"{VAULT}/credentials/{{credential_id:str}}"


def _credential(request: AnyRequest) -> tuple[str, str]:
    caller_of(request, Kind.API)
    return name_of(request, "vault_id"), name_of(request, "credential_id")


@post("/v1/vaults", status_code=200)
async def create_vault(request: AnyRequest) -> Answer:
    """Create a vault."""
    caller_of(request, Kind.API)
    body = await body_of(request, VaultCreate)
    return answer(await services_of(request).vaults.create(body))


@get("/v1/vaults")
async def list_vaults(request: AnyRequest) -> Answer:
    """List vaults, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    return answer(await services_of(request).vaults.list(query, wanted))


@get(VAULT)
async def get_vault(request: AnyRequest) -> Answer:
    """Return a vault."""
    caller_of(request, Kind.API)
    return answer(await services_of(request).vaults.get(name_of(request, "vault_id")))


@post(VAULT, status_code=200)
async def update_vault(request: AnyRequest) -> Answer:
    """Change a vault."""
    caller_of(request, Kind.API)
    body = await body_of(request, VaultUpdate)
    return answer(await services_of(request).vaults.update(name_of(request, "vault_id"), body))


@post(f"{VAULT}/archive", status_code=200)
async def archive_vault(request: AnyRequest) -> Answer:
    """End a vault with its credentials."""
    caller_of(request, Kind.API)
    return answer(await services_of(request).vaults.archive(name_of(request, "vault_id")))


@delete(VAULT, status_code=200)
async def delete_vault(request: AnyRequest) -> Answer:
    """Remove a vault with its credentials."""
    caller_of(request, Kind.API)
    vault_id = name_of(request, "vault_id")
    await services_of(request).vaults.delete(vault_id)
    return answer({"id": vault_id, "type": "vault_deleted"})


@post(f"{VAULT}/credentials", status_code=200)
async def create_credential(request: AnyRequest) -> Answer:
    """Seal a secret and keep it."""
    caller_of(request, Kind.API)
    body = await body_of(request, CredentialCreate)
    vaults, vault_id = services_of(request).vaults, name_of(request, "vault_id")
    return answer(await vaults.create_credential(vault_id, body))


@get(f"{VAULT}/credentials")
async def list_credentials(request: AnyRequest) -> Answer:
    """List a vault's credentials, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    vaults, vault_id = services_of(request).vaults, name_of(request, "vault_id")
    return answer(await vaults.credentials(vault_id, query, wanted))


@get(CREDENTIAL)
async def get_credential(request: AnyRequest) -> Answer:
    """Return a credential without its value."""
    return answer(await services_of(request).vaults.credential(*_credential(request)))


@post(CREDENTIAL, status_code=200)
async def update_credential(request: AnyRequest) -> Answer:
    """Change a credential."""
    names = _credential(request)
    body = await body_of(request, CredentialUpdate)
    return answer(await services_of(request).vaults.update_credential(*names, body))


@post(f"{CREDENTIAL}/archive", status_code=200)
async def archive_credential(request: AnyRequest) -> Answer:
    """End a credential; its value is forgotten."""
    return answer(await services_of(request).vaults.archive_credential(*_credential(request)))


@delete(CREDENTIAL, status_code=200)
async def delete_credential(request: AnyRequest) -> Answer:
    """Remove a credential."""
    names = _credential(request)
    await services_of(request).vaults.delete_credential(*names)
    return answer({"id": names[1], "type": "vault_credential_deleted"})


@post(f"{CREDENTIAL}/mcp_oauth_validate", status_code=200)
async def validate_credential(request: AnyRequest) -> Answer:
    """Say that there is nothing to validate: no credential of this server is for MCP."""
    found = await services_of(request).vaults.credential(*_credential(request))
    raise invalid(f"credential {found['id']} is of type {found['auth']['type']}, not mcp_oauth")


@get("/v1/sessions/{session_id:str}/credentials")
async def list_session_credentials(request: AnyRequest) -> Answer:
    """Return the sealed credentials of a session's vaults, for its hands: an addition of this server."""
    session = await session_of(request, Kind.ENVIRONMENT, Kind.SESSIONS)
    vaults = services_of(request).vaults
    return answer({"data": await vaults.of_session(session.body.vault_ids)})


ROUTES = [
    create_vault,
    list_vaults,
    get_vault,
    update_vault,
    archive_vault,
    delete_vault,
    create_credential,
    list_credentials,
    get_credential,
    update_credential,
    archive_credential,
    delete_credential,
    validate_credential,
    list_session_credentials,
]
