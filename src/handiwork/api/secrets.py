"""`/api/secrets`: values go in, sealed to the proxy's key; none comes out."""

import os

from litestar import Router, delete, get, put
from litestar.params import FromPath, JSONBody

from handiwork.api.control import Control, Injected
from handiwork.model.errors import NotFoundError
from handiwork.model.sealing import ENTROPY_BYTES, seal
from handiwork.model.secret import SecretInfo
from handiwork.model.wire import Listing, SecretBody


@get("/")
async def list_secrets(control: Injected) -> Listing[SecretInfo]:
    """List names, versions and hosts."""
    return Listing(data=tuple(await control.store.secrets.list()))


@put("/{name:str}")
async def put_secret(
    control: Injected, name: FromPath[str], data: JSONBody[SecretBody]
) -> SecretInfo:
    """Write a secret's value and hosts; it replaces the one before at once."""
    before = await _info(control, name)
    sealed = seal(
        await control.boundary.seal_key(control.tenant),
        tenant=control.tenant,
        name=name,
        version=(before.version if before else 0) + 1,
        hosts=data.hosts,
        value=data.value,
        entropy=os.urandom(ENTROPY_BYTES),
    )
    await control.store.secrets.put(sealed, control.now())
    await control.refresh()
    written = await _info(control, name)
    if written is None:
        raise NotFoundError(f"the secret {name!r} was deleted meanwhile")
    return written


@delete("/{name:str}", status_code=204)
async def delete_secret(control: Injected, name: FromPath[str]) -> None:
    """Forget a secret; rules that name it refuse from now on."""
    await control.store.secrets.delete(name)
    await control.refresh()


async def _info(control: Control, name: str) -> SecretInfo | None:
    return next((info for info in await control.store.secrets.list() if info.name == name), None)


routes = Router("/api/secrets", route_handlers=[list_secrets, put_secret, delete_secret])
