"""Snapshots as the settings want them: the tenant's key, the shelf, and who works on it."""

import base64
import binascii
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from handiwork.config import Settings
from handiwork.model.errors import ConfigError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.snapshots.sealing import KEY_BYTES, Keys
from handiwork.sessions.snapshots.background import Background
from handiwork.sessions.snapshots.shelf import Shelf
from handiwork.store.blobs import Blobs
from handiwork.store.protocol import ControlSecrets, Store

ROOT_KEY = "snapshots/root-key"
"""The control secret that all keys of a tenant's snapshots come from."""


async def root_key(secrets: ControlSecrets, draw: Callable[[int], bytes]) -> bytes:
    """Return the tenant's key, made at the first time; ConfigError for what is none."""
    kept = await secrets.get(ROOT_KEY)
    if kept is None:
        fresh = draw(KEY_BYTES)
        await secrets.put(ROOT_KEY, base64.b64encode(fresh).decode())
        return fresh
    try:
        key = base64.b64decode(kept, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the control secret {ROOT_KEY} is no key; restore the database's backup")
    return key


@asynccontextmanager
async def opened_shelf(
    settings: Settings,
    blobs: Blobs,
    store: Store,
    images: Images,
    *,
    clock: Callable[[], datetime],
    draw: Callable[[int], bytes],
    metrics: Metrics,
) -> AsyncIterator[Background]:
    """Yield what keeps the files of sandboxes; it ends after them, when its work is done."""
    shelf = Shelf(
        blobs=blobs,
        keys=Keys(await root_key(store.control_secrets, draw)),
        tenant=DEFAULT_TENANT,
        store=store,
        sandbox=settings.sandbox,
        clock=clock,
        draw=draw,
        metrics=metrics,
    )
    try:
        await shelf.learn()
        images.held_by(shelf.standing)
        async with Background(shelf, settings.snapshots) as background:
            yield background
    finally:
        shelf.close()
