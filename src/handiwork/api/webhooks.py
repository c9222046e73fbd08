"""`POST /webhooks`, where brains tell us that something happened; `/api/webhooks`, what they told.

A webhook is a wake-up and no more: the queue is asked what there is to do. Its signature is its
proof, so it comes without the admin key; whatever is cheap to check is checked before its body is
read. A sender hears 200 once the delivery is kept; the work it announces happens later.
"""

import asyncio
import time
from datetime import timedelta
from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.exceptions import HTTPException, InternalServerException
from litestar.params import QueryParameter

from handiwork.api.control import Control, Injected
from handiwork.api.streams import CallerLeft
from handiwork.model.errors import BadSignatureError
from handiwork.model.webhook import ReceivedWebhook
from handiwork.model.wire import ErrorBody, ErrorEnvelope, Listing
from handiwork.observe import log
from handiwork.sessions.webhooks import Rate, check_time, read_event, read_headers, verify

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 5.0
"""A sender that is slower is let go, so that it cannot hold a place."""
MAX_BODIES = 16
"""Held at once; with their limit the memory that strangers can make us hold."""
PER_SECOND, BURST = 100.0, 300
RETENTION = timedelta(days=7)
MAX_KEPT = 10_000
"""Far more than can arrive within twice the tolerance of a timestamp in sane use; a replay of one
that was dropped would only wake the dispatchers once more."""

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class Admission:
    """How many deliveries are looked at: so many in a second, so many bodies at once."""

    def __init__(self, *, per_second: float = PER_SECOND, burst: int = BURST) -> None:
        self._rate = Rate(per_second=per_second, burst=burst)
        self.bodies = asyncio.Semaphore(MAX_BODIES)
        self.told_without_key = False

    def admit(self, now: float) -> bool:
        """Say whether there is room for one more."""
        return not self.bodies.locked() and self._rate.admit(now)


@post("/webhooks", status_code=200, request_max_body_size=MAX_BODY_BYTES, security=[{}])
async def receive(
    control: Injected, request: Request[Any, Any, Any]
) -> Response[dict[str, str]] | Response[ErrorEnvelope]:
    """Take a delivery: 200 kept, 401 not proven, 400 no event, 413 too long, 429 too many."""
    admission: Admission = request.app.state.webhooks
    if not control.webhook_keys:
        _tell_without_key(admission)
        raise HTTPException("no webhook key is set here", status_code=404)
    if not admission.admit(time.monotonic()):
        error = ErrorBody(type="request", message="too many webhooks; send it again later")
        return Response(ErrorEnvelope(error=error), status_code=429, headers={"retry-after": "5"})
    try:
        webhook = await _proven(control, request, admission)
    except BadSignatureError as error:
        log.get("webhooks").warning("webhook refused", reason=str(error))
        raise
    is_new = await control.store.webhooks.add(
        webhook, keep_from=webhook.received_at - RETENTION, keep_at_most=MAX_KEPT
    )
    if is_new and webhook.known:
        control.wake()
    log.get("webhooks").info(
        "webhook", id=webhook.id, kind=webhook.kind, known=webhook.known, new=is_new
    )
    return Response({"status": "kept" if is_new else "known already"}, status_code=200)


@get("/")
async def list_webhooks(control: Injected, limit: Limit = 100) -> Listing[ReceivedWebhook]:
    """List the deliveries that were kept, newest first; what they say is their sender's."""
    return Listing(data=tuple(await control.store.webhooks.list(limit=limit)))


async def _proven(
    control: Control, request: Request[Any, Any, Any], admission: Admission
) -> ReceivedWebhook:
    now = control.now()
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise HTTPException(status_code=413)
    delivery = read_headers(request.scope["headers"])
    check_time(delivery, now)
    async with admission.bodies:
        body = await _body(request)
        verify(delivery, body, control.webhook_keys)
        return read_event(delivery, body, now)


async def _body(request: Request[Any, Any, Any]) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise HTTPException("the body did not come in time", status_code=408) from None
    except InternalServerException:
        # What the framework makes of a sender that leaves before its body is whole.
        raise CallerLeft from None


def _tell_without_key(admission: Admission) -> None:
    """Once: whoever finds the port could fill the log otherwise."""
    if not admission.told_without_key:
        admission.told_without_key = True
        log.get("webhooks").warning(
            "a webhook came and no key is set: store one with `handiwork init --webhook-key-file`,"
            " or set webhooks.key_files"
        )


routes = Router("/api/webhooks", route_handlers=[list_webhooks])
