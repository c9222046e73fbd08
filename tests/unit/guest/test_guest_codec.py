"""The C codec against the golden corpus, under the sanitizers, and fuzzed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GUEST = Path(__file__).parents[3] / "guest"
CORPUS = sorted((GUEST / "corpus").glob("*.json"))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory):
    """The directory of the sanitizer build."""
    folder = tmp_path_factory.mktemp("sanitized")
    subprocess.run([GUEST / "build.sh", "--sanitize", "--output", folder], check=True)
    return folder


def decode(sanitized, reader, text):
    done = subprocess.run(
        [sanitized / "decode", reader], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_corpus_is_there():
    assert len(CORPUS) > 40
    assert {path.stem for path in CORPUS} == {
        path.stem for path in (GUEST / "corpus").glob("*.hex")
    }


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_golden_frames(sanitized, path):
    expected = json.loads(path.read_text())
    reader = expected.pop("to")
    assert decode(sanitized, reader, path.with_suffix(".hex").read_text()) == expected


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200), reader=st.sampled_from(["agent", "host"]))
def test_any_bytes_decode_or_are_rejected(sanitized, data, reader):
    assert decode(sanitized, reader, data.hex())["ends"] in ("clean", "incomplete", "rejected")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, 400), path=st.sampled_from([p for p in CORPUS if p.stem != "largest_data"])
)
def test_a_cut_stream_is_never_mistaken_for_a_whole_one(sanitized, cut, path):
    expected = json.loads(path.read_text())
    text = "".join(path.with_suffix(".hex").read_text().split())
    if expected["ends"] != "clean" or 2 * cut >= len(text):
        return
    found = decode(sanitized, expected["to"], text[: 2 * cut])
    assert found["frames"] == expected["frames"][: len(found["frames"])]
    assert len(found["frames"]) < len(expected["frames"])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", ["channel", "mux"])
def test_fuzzing_finds_nothing(tmp_path, target):
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    subprocess.run([GUEST / "build.sh", "--fuzz", "--output", tmp_path], check=True)
    seeds = tmp_path / ("seeds" if target == "channel" else "seeds_mux")
    command = [tmp_path / f"fuzz_{target}", "-max_total_time=40", "-max_len=70000", seeds]
    subprocess.run(command, check=True, capture_output=True)
