"""Images from registries: fetched by us, through a way out of the proxy's that lives as long as it takes."""

import asyncio
import os
from contextlib import aclosing

from handiwork.egress.protocol import Boundary
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import ConfigError
from handiwork.model.ids import new_id
from handiwork.model.policy import AllowRule, Match, Policy, PolicyLayer
from handiwork.sandboxes.images.archive import Blob
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.reading import Unpacked, assemble
from handiwork.sandboxes.images.registry import Reference, Registry, way_out
from handiwork.sandboxes.images.upload import Upload
from handiwork.store.protocol import ControlSecrets

CREDENTIALS = "registry/"
"""Control secrets of this prefix and a registry's host hold USER:PASSWORD."""
GRANT = EgressGrant(
    layers=(
        PolicyLayer(
            scope="global",
            policy=Policy(
                name="image-pull",
                rules=(AllowRule(id="https", match=Match(hosts=("*",), methods=("GET",))),),
            ),
        ),
    )
)
"""A registry leads to whatever public host it likes; the proxy refuses every other address."""


async def put_credentials(secrets: ControlSecrets, host: str, user: str, password: str) -> None:
    """Keep what a registry asks for; ConfigError where it cannot be sent."""
    if not (user and password) or ":" in user or not (user + password).isprintable():
        raise ConfigError("a user without ':' and a password are needed, both printable")
    await secrets.put(CREDENTIALS + host, ":".join((user, password)))


async def from_registry(
    reference: Reference,
    build: Build,
    boundary: Boundary,
    secrets: ControlSecrets,
    grant: EgressGrant = GRANT,
) -> Unpacked:
    """Return the tree of a registry's image; the errors of `Registry`."""
    kept = await secrets.get(CREDENTIALS + reference.host)
    user, _, password = (kept or "").partition(":")
    pull_id = new_id("egb", os.urandom(10))
    way = await boundary.open(
        EgressBinding(id=pull_id, kind="tool", tool="image-pull", ca_id=pull_id), grant
    )
    fetched = Upload(build.place)
    build.closes(fetched.close)
    names: dict[str, Blob] = {}
    try:
        async with way_out(way.path) as http:
            registry = Registry(http, reference, (user, password) if kept else None)
            async with aclosing(registry.parts(build.progress)) as parts:
                async for name, pieces in parts:
                    start = fetched.size
                    async for piece in pieces:
                        await asyncio.to_thread(fetched.take, piece)
                    names[name] = Blob(offset=start, size=fetched.size - start, name=name)
    finally:
        await boundary.close(pull_id)
    return await build.unpack(
        lambda at, files, told: assemble(fetched.file, names, at, files, progress=told)
    )
