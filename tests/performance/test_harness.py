"""The benchmark harness: turns, medians, and the object that others read."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
_spec = importlib.util.spec_from_file_location("harness", BENCH / "harness.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


async def test_arms_take_turns_and_the_warm_up_does_not_count() -> None:
    bench = harness.Bench("x", quick=True)
    order: list[str] = []

    def arm(name: str):
        async def run() -> float:
            order.append(name)
            return float(len(order))

        return run

    taken = await bench.alternate({"a": arm("a"), "b": arm("b")}, count=2, warm_up=1)
    assert "".join(order) == "abbaab"
    assert taken == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


async def test_an_arm_that_does_not_time_itself_is_timed() -> None:
    assert await harness.timed(lambda: asyncio.sleep(0.01)) >= 0.01


def test_a_result_is_a_median_with_its_spread() -> None:
    bench = harness.Bench("x", quick=False)
    bench.record("create_ms", [0.001 * n for n in range(1, 101)], "ms", scale=1000, peer="y")
    found = bench.results["create_ms"]
    assert found == {
        "value": 50.5,
        "unit": "ms",
        "p50": 50.5,
        "p95": 95.0,
        "n": 100,
        "peer": "y",
    }


def test_what_cannot_be_measured_is_skipped_by_name() -> None:
    bench = harness.Bench("x", quick=False)
    with bench.part("a_ms", "b_ms"):
        harness.peer("no-such-peer", "program")
    assert set(bench.skipped) == {"a_ms", "b_ms"}
    assert "no-such-peer" in bench.skipped["a_ms"]
    with pytest.raises(ValueError, match="a fault"), bench.part("c_ms"):
        raise ValueError("a fault is not a reason to skip")


def test_the_report_has_the_shape_that_others_read(tmp_path: Path) -> None:
    program = tmp_path / "tiny.py"
    program.write_text(
        "import harness\n"
        "async def measure(bench):\n"
        "    bench.record('a_ms', [1.0], 'ms')\n"
        "harness.main('tiny', measure)\n"
    )
    told = subprocess.run(
        [sys.executable, program, "--quick", "--json"],
        env={"PYTHONPATH": str(BENCH)},
        capture_output=True,
        check=True,
    )
    report = json.loads(told.stdout)
    assert report["bench"] == "tiny"
    assert report["quick"] is True
    assert set(report) >= {"machine", "versions", "protections", "results", "skipped"}
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["sha256_mib_per_s"] > 0
    assert report["results"]["a_ms"]["value"] == 1.0
