"""The main job beside its peers: sandboxes, tool calls, claims, and intercepted requests."""

import harness
from parts import creation, inject, toolcalls


async def measure(bench: harness.Bench) -> None:
    with bench.part("sandbox_create_ms", "bwrap_create_ms", "exec_warm_ms"):
        async with creation.sandboxes() as boxes:
            await creation.measure_create(bench, boxes)
            await creation.measure_exec(bench, boxes)
            with bench.part("https_inject_vs_mitmproxy_ratio"):
                await inject.measure(bench, boxes)
    with bench.part("tool_call_ms", "tool_call_vs_sdk_ratio", "claim_latency_ms"):
        await toolcalls.measure(bench)


if __name__ == "__main__":
    harness.main("first", measure)
