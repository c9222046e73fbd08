"""The session engine beside the SDK's own worker: calls, turns, interrupts, and many sessions."""

import harness
from parts import doors, idle, toolcalls, turns


async def measure(bench: harness.Bench) -> None:
    async with toolcalls.world(program=[toolcalls.HERE / "up_with_wait.py"]) as world:
        with bench.part("tool_call_ms", "tool_call_vs_sdk_ratio"):
            await toolcalls.measure_calls(bench, world.client, world.served)
        with bench.part("three_parallel_seconds"):
            await turns.measure_parallel(bench, world.client, world.served)
        with bench.part("interrupt_ms"):
            await turns.measure_interrupt(bench, world.client, world.served)
        with bench.part("claim_latency_ms"):
            await toolcalls.measure_claims(bench, world.client, world.served, beside_sdk=True)
        with bench.part("claim_five_environments_ms"):
            await doors.measure_five(bench, world.client, world.served, world.directory / "five")
        with bench.part("webhook_answer_ms"):
            await doors.measure_webhooks(bench, world.served, world.directory / "webhooks")
        with bench.part("session_idle_mib"):
            await idle.measure(bench, world.client, world.served, world.directory / "many")


if __name__ == "__main__":
    harness.main("session", measure)
