"""The fuzz targets, each for a while: none finds anything, and each finds a mistake that is made on purpose."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzing.seeds import SEEDS

TARGETS = Path(__file__).parents[1] / "fuzzing"
SECONDS = {
    "frames": 120,
    "exchange": 30,
    "fetch_rules": 20,
    "arguments": 20,
    "mask": 60,
    "decoding": 30,
    "websocket": 30,
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None,
        reason="atheris is not installed: it has no wheel for this Python or processor",
    ),
]


def fuzzed(
    name: str, place: Path, seconds: int, planted: str = ""
) -> subprocess.CompletedProcess[str]:
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"{number:02}").write_bytes(seed)
    argv = [sys.executable, str(TARGETS / f"fuzz_{name}.py"), str(corpus)]
    argv += [f"-max_total_time={seconds}", f"-artifact_prefix={place}/", "-max_len=8192"]
    environment = {**os.environ, "PLANT": planted}
    return subprocess.run(
        argv, cwd=place, env=environment, capture_output=True, text=True, timeout=seconds + 120
    )


def test_every_target_is_run() -> None:
    found = {path.stem.removeprefix("fuzz_") for path in TARGETS.glob("fuzz_*.py")}
    assert found == set(SECONDS) == set(SEEDS)


@pytest.mark.parametrize("name", SECONDS)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    done = fuzzed(name, tmp_path, SECONDS[name])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = int(done.stderr.rpartition("Done ")[2].split()[0])
    assert runs > 10_000


@pytest.mark.parametrize("name", SECONDS)
def test_a_mistake_is_found(name: str, tmp_path: Path) -> None:
    done = fuzzed(name, tmp_path, 60, planted=name)
    assert done.returncode != 0
    assert "AssertionError: planted" in done.stdout + done.stderr
    assert [path.name[:6] for path in tmp_path.glob("crash-*")] == ["crash-"]
