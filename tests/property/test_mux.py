"""The exit bridge's codec for any frames and any bytes, and the two codecs against each other."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handiwork.sandboxes.microvm.mux import Decoder, Kind, MuxError, MuxFrame, encode

GUEST = Path(__file__).parents[2] / "guest"
FLOWS = st.integers(1, 2**32 - 1)
FRAMES = st.one_of(
    st.builds(MuxFrame, FLOWS, st.sampled_from([Kind.OPEN, Kind.END, Kind.RESET])),
    st.builds(MuxFrame, FLOWS, st.just(Kind.DATA), st.binary(min_size=1, max_size=300)),
    st.builds(
        lambda flow, credit: MuxFrame(flow, Kind.CREDIT, credit=credit),
        FLOWS,
        st.integers(1, 65536),
    ),
    st.builds(MuxFrame, st.just(0), st.sampled_from([Kind.HUSH, Kind.WAKE])),
)


@given(
    frames=st.lists(FRAMES, max_size=20), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=9)
)
def test_frames_come_back_however_they_are_cut(frames, cuts):
    data = b"".join(map(encode, frames))
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == frames
    assert decoder.unread == 0


def told_by_python(data):
    decoder, found = Decoder(), []
    try:
        for frame in decoder.feed(data):
            found.append(
                {
                    "flow": frame.flow,
                    "kind": frame.kind.name,
                    "data": frame.data.decode("latin-1"),
                    "credit": frame.credit,
                }
            )
    except MuxError:
        return {"frames": found, "ends": "rejected"}
    return {"frames": found, "ends": "incomplete" if decoder.unread else "clean"}


@pytest.fixture(scope="module")
def decode_mux(tmp_path_factory):
    program = tmp_path_factory.mktemp("mux") / "decode_mux"
    sources = [GUEST / "mux.c", GUEST / "decode_mux.c"]
    flags = ["-std=gnu11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, "-o", program, *sources], check=True)
    return program


def told_by_c(program, data):
    done = subprocess.run([program], input=data.hex(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=120),
        st.lists(FRAMES, max_size=5).map(lambda frames: b"".join(map(encode, frames))),
    ),
    change=st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(0, 255))),
)
def test_both_codecs_say_the_same(decode_mux, data, change):
    if change and change[0] < len(data):
        data = data[: change[0]] + bytes([change[1]]) + data[change[0] + 1 :]
    assert told_by_c(decode_mux, data) == told_by_python(data)


@pytest.mark.parametrize(
    "path", sorted((GUEST / "corpus/mux").glob("*.json")), ids=lambda path: path.stem
)
def test_golden_frames_in_c(decode_mux, path):
    data = bytes.fromhex(path.with_suffix(".hex").read_text())
    assert told_by_c(decode_mux, data) == json.loads(path.read_text())
