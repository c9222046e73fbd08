"""The corners of the brain contract that cost others dearly, and the tests that hold each of them.

The table is checked: a test that is renamed or removed is missed here. What no other test holds
stands below.
"""

import ast
import asyncio
from functools import cache
from pathlib import Path

import msgspec
import pytest

from handiwork.tools.toolset import stock
from session_world import World, call, until

TESTS = Path(__file__).parents[1]

BRAIN = "unit/brains/test_anthropic.py"
HOLDING = "unit/brains/test_holding.py"
WIRE = "unit/brains/test_wire.py"
CALLS = "unit/sessions/test_calls.py"
RUNNER = "unit/sessions/test_runner.py"
KILLS = "integration/test_kill_points.py"
WAITS = "integration/test_session_waits.py"
SESSIONS = "integration/test_sessions.py"
SDK = "integration/test_local_brain_sdk.py"
QUEUE = "unit/brains/local/test_queue.py"
WORK = "unit/brains/local/test_routes_work.py"
SHELL = "unit/tools/test_shell_process.py"
STOCK = "integration/test_stock_tools.py"
RESOURCES = "unit/brains/test_resources.py"
HERE = "contract/test_traps.py"

TRAPS: dict[int, tuple[str, tuple[tuple[str, str], ...]]] = {
    1: (
        "a queue without work says null; an empty body or 204 would end the SDK's worker",
        (
            (WORK, "test_an_empty_poll_is_null"),
            (SDK, "test_an_empty_poll_answers_null"),
            (BRAIN, "test_an_empty_body_is_an_empty_poll"),
        ),
    ),
    2: (
        "a stream's frame without a name is dropped by the SDK",
        (("unit/brains/local/test_streams.py", "test_a_frame_names_its_event"),),
    ),
    3: (
        "clients differ in how they show a key, in versions and in how they write a query",
        (
            ("unit/brains/local/test_gate.py", "test_who_may_come_in"),
            (SDK, "test_lists_are_paged_filtered_and_ordered"),
        ),
    ),
    4: (
        "a poll blocks for 1-999 ms; zero is an error, not 'at once'",
        ((WORK, "test_a_poll_out_of_bounds_is_refused"),),
    ),
    5: (
        "acknowledge, then the first beat that expects none, then each echoes the last to the byte",
        (
            (BRAIN, "test_hold_claims_the_lease_echoes_and_stops"),
            (BRAIN, "test_the_brains_word_is_echoed_byte_for_byte"),
            (QUEUE, "test_a_heartbeat_before_the_acknowledgement_is_refused"),
        ),
    ),
    6: (
        "who lost the lease neither stops nor posts; who restarts goes on with the last beat",
        (
            (SESSIONS, "test_a_lost_lease_posts_nothing"),
            (HOLDING, "test_a_lease_that_another_holds_is_off_the_record_and_not_stopped"),
            (
                "integration/test_lease_restart.py",
                "test_the_successor_goes_on_with_the_same_work_item",
            ),
        ),
    ),
    7: (
        "an item is stopped by the one that ends it, not by one that handed it on",
        (
            (BRAIN, "test_a_lease_lost_in_the_middle_cancels_the_body"),
            (WORK, "test_a_key_of_an_older_lease_cannot_stop_the_item"),
        ),
    ),
    8: (
        "a health check is acknowledged and stopped, and brings no session",
        ((BRAIN, "test_a_health_check_is_acknowledged_and_stopped"),),
    ),
    9: (
        "a session that is over takes no result",
        (
            (RUNNER, "test_a_session_that_is_over_is_not_served"),
            (RUNNER, "test_the_end_of_the_session_deletes_its_sandbox"),
        ),
    ),
    10: (
        "an interrupt settles by time, not by place in a list; what it covers never runs again",
        (
            (
                "integration/test_interrupt.py",
                "test_the_whole_process_tree_is_gone_and_the_next_message_is_served",
            ),
            (CALLS, "test_an_interrupted_call_never_runs_however_late_it_is_told"),
            (KILLS, "test_interrupted_and_not_settled"),
        ),
    ),
    11: (
        "between running and posting lies a crash: only a ledger keeps a call from running twice",
        (
            (KILLS, "test_finished_and_not_stored"),
            (KILLS, "test_stored_and_not_posted"),
            (KILLS, "test_posted_and_not_stored"),
        ),
    ),
    12: (
        "a verdict that is not known holds the call; a denied one gets no result of ours",
        (
            (WIRE, "test_only_a_known_verdict_runs"),
            (WIRE, "test_a_judgement_of_the_call_only_makes_the_verdict_stricter"),
            (RUNNER, "test_what_is_not_allowed_never_runs"),
        ),
    ),
    13: (
        "a call of a tool that is not ours stays pending, and the operator sees that it does",
        (
            (WAITS, "test_what_a_session_waits_for_is_kept_with_it_until_it_is_over"),
            (RUNNER, "test_an_open_turn_is_not_idle"),
        ),
    ),
    14: ("results of custom tools name their call by another key", ((WIRE, "test_results"),)),
    15: (
        "a shell that ended is replaced, an open quote hangs nothing, an exit code is told",
        (
            (SHELL, "test_an_unfinished_line_fails_at_once_and_harms_nothing"),
            (SHELL, "test_exit_ends_the_shell_and_the_next_command_has_a_new_one"),
            ("unit/tools/test_shell.py", "test_what_went_wrong_is_an_error"),
        ),
    ),
    16: (
        "no fixed ceiling of time over a tool; what runs in the background goes on",
        (
            ("unit/tools/test_toolset.py", "test_the_operator_sets_a_tools_limit"),
            (STOCK, "test_jobs_of_the_shell_survive_its_commands"),
        ),
    ),
    17: (
        "an input schema is one object without references",
        ((HERE, "test_no_schema_of_ours_refers_to_another"),),
    ),
    18: (
        "names of the toolset and two prefixes are taken",
        (
            ("unit/tools/test_registry.py", "test_reserved_and_taken_names_are_refused"),
            ("unit/brains/local/test_shapes.py", "test_reserved_and_doubled_names_are_refused"),
        ),
    ),
    19: (
        "memory stores open to a session's own key only, and each has a place of its own",
        (
            (RESOURCES, "test_without_a_token_skills_go_and_memories_do_not"),
            ("unit/brains/local/test_memory.py", "test_stores_of_one_session_are_mounted_apart"),
        ),
    ),
    20: (
        "a skill's archive comes from a stranger",
        (
            (
                "unit/brains/local/test_skill_files.py",
                "test_hostile_archives_are_refused_with_the_rule",
            ),
        ),
    ),
    21: (
        "no variable of the brain's is in a tool's environment",
        ((STOCK, "test_no_credential_of_a_brain_is_in_the_environment"),),
    ),
    22: (
        "a session's own key buys model calls for an hour: it stays outside",
        (("security/test_no_credential.py", "test_no_credential_is_in_a_sandbox"),),
    ),
    23: (
        "webhook keys come in two alphabets; deliveries repeat and keep no order",
        (
            ("unit/sessions/test_webhooks.py", "test_a_key_in_every_spelling"),
            (
                "unit/api/test_webhooks.py",
                "test_a_second_delivery_is_acknowledged_and_does_nothing",
            ),
        ),
    ),
    24: (
        "paths are confined by us; no option of the SDK does it",
        ((SESSIONS, "test_every_stock_tool_of_one_session"),),
    ),
    25: (
        "the SDK takes a client of its own HTTP library only",
        ((BRAIN, "test_claim_polls_and_acknowledges"),),
    ),
    26: ("each key opens some calls of the queue", ((WORK, "test_each_key_does_what_it_is_for"),)),
    27: (
        "a history has pages, and nothing is begun before the last is read",
        (
            (BRAIN, "test_history_in_pages_then_live_without_what_was_listed"),
            (BRAIN, "test_when_the_history_cannot_be_listed_nothing_is_told"),
        ),
    ),
    28: (
        "a turn that waits is told as idle again and again, with fewer calls each time",
        ((SDK, "test_parallel_calls_are_told_at_once_and_settled_one_by_one"),),
    ),
    29: (
        "a brain may send no webhooks: polling alone serves it",
        ((SESSIONS, "test_twenty_sessions_at_once"),),
    ),
    30: (
        "a stop by the brain does not wait for the tool that runs",
        ((HERE, "test_a_stop_of_the_brain_does_not_wait_for_what_runs"),),
    ),
    31: (
        "posts have no key of their own: a second one is harmless, a refused one is not repeated",
        (
            (SDK, "test_a_second_result_is_harmless_and_an_unknown_one_is_refused"),
            (RUNNER, "test_a_result_refused_for_good_is_told_and_not_repeated"),
            (KILLS, "test_refused_and_not_settled"),
        ),
    ),
    32: (
        "a session's own key may be refused skills that the environment's is given",
        ((RESOURCES, "test_skills_go_with_the_environment_key_where_the_token_may_not"),),
    ),
    33: (
        "a work item may bring no secret",
        ((WIRE, "test_work_items"), (BRAIN, "test_hold_claims_the_lease_echoes_and_stops")),
    ),
}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_trap_is_in_the_table() -> None:
    assert sorted(TRAPS) == list(range(1, 34))


@pytest.mark.parametrize("number", sorted(TRAPS))
def test_a_trap_is_held_by_tests_that_exist(number: int) -> None:
    _, held_by = TRAPS[number]
    assert held_by
    missing = [f"{path}::{name}" for path, name in held_by if name not in names_in(path)]
    assert not missing


def test_no_schema_of_ours_refers_to_another() -> None:
    for one in stock():
        text = msgspec.json.encode(one.schema)
        assert one.schema["type"] == "object"
        for word in (b"$ref", b"$defs", b"$schema"):
            assert word not in text, f"{one.name}: {word!r}"
        assert not one.schema.keys() & {"anyOf", "oneOf", "allOf"}


async def test_a_stop_of_the_brain_does_not_wait_for_what_runs(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 60"))

        async def runs() -> bool:
            return "tool.started" in await world.kinds()

        await until(runs)
        (box,) = world.driver.live.values()
        async with asyncio.timeout(10):
            world.brain.ask_to_stop("sesn_1")
            assert await box.closed() == ""
        assert world.brain.posts == []
