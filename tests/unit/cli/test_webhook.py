"""`handiwork webhook list`: what a sender says steers no terminal."""

import json

from api_stand_in import NOW
from handiwork.model.webhook import ReceivedWebhook


def test_list(api, handiwork) -> None:
    webhook = ReceivedWebhook(
        id="event_1", kind="session.\x1b[2Jcreated[/b]", subject_id="sesn_1", received_at=NOW
    )
    api(api.served.store.webhooks.add(webhook, keep_from=NOW, keep_at_most=9))
    (row,) = json.loads(handiwork("webhook", "list", "--json").out)
    assert row["id"] == "event_1"
    done = handiwork("webhook", "list")
    assert (done.code, "event_1" in done.out, "\x1b" in done.out) == (0, True, False)
    assert "session.\ufffd[2Jcreated[/b]" in done.out
