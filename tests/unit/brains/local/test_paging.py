"""Queries of lists: brackets, bounds, moments and cursors."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import paging
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.tables import EVENTS

COLUMN = EVENTS.c.created_at


def test_values_are_found_with_and_without_brackets():
    query = [("types[]", "a"), ("types", "b"), ("limit", "1"), ("limit", "2")]
    assert paging.every(query, "types") == ["a", "b"]
    assert paging.first(query, "limit") == "2"
    assert paging.first(query, "none") is None
    assert paging.flag([("include_archived", "true")], "include_archived")


@pytest.mark.parametrize("text", ["0", "1000", "x", "-1", "1.5", "", "9" * 30, "٣"])
def test_numbers_have_bounds(text):
    with pytest.raises(WireError, match="block_ms"):
        paging.number([("block_ms", text)], "block_ms", 1, 999)


def test_a_page_leads_to_the_next():
    page = paging.page([("limit", "2")], limit=20, most=100, order="desc")
    listed = page.answer([(9, "c"), (8, "b"), (7, "a")])
    assert listed["data"] == ["c", "b"]
    following = paging.page([("page", listed["next_page"])], limit=2, most=100, order="asc")
    assert (following.order, following.after) == ("desc", 8)
    assert following.answer([(7, "a")]) == {"data": ["a"], "next_page": None}


@given(
    st.sets(st.integers(0, 50), max_size=20), st.integers(1, 7), st.sampled_from(["asc", "desc"])
)
def test_pages_lead_forth_and_back_over_the_same_rows(keys, limit, order):
    def read(page):
        low = sorted(keys) if page.ascending else sorted(keys, reverse=True)
        rows = [
            key
            for key in low
            if page.after is None or (key > page.after if page.ascending else key < page.after)
        ]
        return page.answer_both_ways([(key, key) for key in rows[: page.limit + 1]])

    def follow(token):
        return read(paging.page([("page", token)], limit=limit, most=100, order="asc"))

    forth = [read(paging.Page(limit, order))]
    assert forth[0]["prev_page"] is None
    while forth[-1]["next_page"]:
        forth.append(follow(forth[-1]["next_page"]))
    shown = [key for page in forth for key in page["data"]]
    assert shown == sorted(keys, reverse=order == "desc")
    back = [forth[-1]]
    while back[-1]["prev_page"]:
        back.append(follow(back[-1]["prev_page"]))
    assert [page["data"] for page in back[::-1]] == [page["data"] for page in forth]


@given(st.text(max_size=60))
def test_any_cursor_is_ours_or_refused(text):
    with contextlib.suppress(WireError):
        paging.page([("page", text)], limit=2, most=100, order="asc")


def test_moments_are_compared_in_one_zone():
    [condition] = paging.moments(
        [("created_at[gt]", "2026-01-01T02:00:00+02:00")], "created_at", COLUMN
    )
    assert condition.right.value == "2026-01-01T00:00:00.000000Z"
    with pytest.raises(WireError, match="RFC 3339"):
        paging.moments([("created_at[lte]", "yesterday")], "created_at", COLUMN)


def test_a_wrong_order_is_refused():
    with pytest.raises(WireError, match="order"):
        paging.page([("order", "up")], limit=2, most=100, order="asc")
