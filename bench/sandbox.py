"""Sandboxes of every tier at the driver's port, beside others' sandboxes, in one run."""

import harness
from parts import crowd, engines, killed, machines, rest, tiers


async def measure(bench: harness.Bench) -> None:
    namespace = ("namespace_create_ms", "namespace_pooled_ms", "exec_warm_ms", "idle_mib")
    bursts = ("burst100_p95_ms", "burst100_pooled_p95_ms", "burst100_bwrap_p95_ms")
    with bench.part(*namespace, "live_sandboxes", *bursts, "bwrap_ms", "runc_ms"):
        async with tiers.tier("namespace") as made:
            bench.protections += tiers.protections(made)
            await beside_small(bench, made)
            await tiers.measure_exec(bench, made, "exec_warm_ms", bench.times(1000, 200))
            await crowd.measure(bench, made)
    gvisor = ("gvisor_create_ms", "gvisor_pooled_ms", "gvisor_exec_warm_ms")
    with bench.part(*gvisor, "gvisor_own_exec_ms", "runsc_ms", "podman_ms"):
        async with tiers.tier("gvisor") as made:
            await beside_large(bench, made)
            await tiers.measure_exec(bench, made, "gvisor_exec_warm_ms", bench.times(200, 20))
            await tiers.measure_own_exec(bench, made, "gvisor_own_exec_ms", bench.times(20, 4))
    with bench.part("namespace_create_rest_ms", "namespace_pooled_rest_ms"):
        await rest.measure(bench)
    with bench.part("after_kill_ms"):
        await killed.measure(bench)
    with bench.part(*machines.NAMES):
        await machines.measure(bench)
    with bench.part("qemu_cold_ms"), engines.qemu(bench) as start:
        taken = [start() for _ in range(1 + bench.times(5, 2))][1:]
        bench.record("qemu_cold_ms", taken, "ms", scale=1000)
    with bench.part(*machines.KVM_NAMES):
        await machines.measure_kvm(bench)


async def beside_small(bench: harness.Bench, made: tiers.Tier) -> None:
    """Made, claimed, and the peers that start as fast, in turns."""
    with engines.bundle() as directory:
        arms = {"namespace_create_ms": made.made, "namespace_pooled_ms": made.claimed}
        arms["host_ms"] = engines.arm(engines.host())
        with bench.part("bwrap_ms"):
            arms["bwrap_ms"] = engines.arm(engines.bubblewrap(bench))
        with bench.part("runc_ms"):
            arms["runc_ms"] = engines.arm(engines.runc(bench, directory))
        taken = await bench.alternate(arms, count=bench.times(200, 30), warm_up=5)
    record(bench, taken)
    for peer in ("bwrap", "runc"):
        name = f"namespace_create_vs_{peer}_ratio"
        ratio(bench, name, taken, "namespace_create_ms", f"{peer}_ms")


async def beside_large(bench: harness.Bench, made: tiers.Tier) -> None:
    """The same of gVisor, beside gVisor alone, and an engine that takes as long."""
    with engines.bundle() as directory:
        arms = {"gvisor_create_ms": made.made, "gvisor_pooled_ms": made.claimed}
        with bench.part("runsc_ms"):
            arms["runsc_ms"] = engines.arm(engines.runsc(bench, directory))
        with bench.part("podman_ms"):
            arms["podman_ms"] = engines.arm(engines.podman(bench, directory))
        record(bench, await bench.alternate(arms, count=bench.times(20, 4), warm_up=1))


def record(bench: harness.Bench, taken: dict[str, list[float]]) -> None:
    for name, seconds in taken.items():
        bench.record(name, seconds, "ms", scale=1000)


def ratio(
    bench: harness.Bench, name: str, taken: dict[str, list[float]], ours: str, theirs: str
) -> None:
    """Keep a ratio of neighbouring runs, where there are both."""
    if theirs in taken:
        pairs = zip(taken[ours], taken[theirs], strict=True)
        bench.ratio(name, [one / other for one, other in pairs])


if __name__ == "__main__":
    harness.main("sandbox", measure)
