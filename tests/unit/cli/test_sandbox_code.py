"""`handiwork sandbox code`: its value is our output, its log our standard error."""

import json

import pytest


@pytest.fixture
def box(api, handiwork) -> str:
    return handiwork("sandbox", "create").out.strip()


def codes(api, box: str):
    return api.served.sandboxes.live[box].codes


def test_a_value_and_a_log(api, handiwork, box) -> None:
    done = handiwork("sandbox", "code", box, "-e", "1 + 1")
    assert (done.code, done.out, done.err) == (0, '{"gave":"1 + 1"}\n', "1 + 1\n")
    assert (codes(api, box)[-1].language, codes(api, box)[-1].fresh) == ("javascript", False)
    told = json.loads(handiwork("sandbox", "code", box, "-e", "1", "--json").out)
    assert told["value_json"] if "value_json" in told else told["value"]


def test_a_file_tells_its_language_and_its_name(api, handiwork, box, tmp_path, typed) -> None:
    for name, language in (("a.py", "python"), ("b.mjs", "javascript"), ("c", "javascript")):
        (tmp_path / name).write_text("1")
        assert handiwork("sandbox", "code", box, str(tmp_path / name)).code == 0
        assert codes(api, box)[-1].language == language
        assert codes(api, box)[-1].name == f"/workspace/{name}"
    typed(b"typed")
    options = ("-l", "python", "--fresh", "--cpu-ms", "7", "--timeout-seconds", "2")
    assert handiwork("sandbox", "code", box, *options).code == 0
    request = codes(api, box)[-1]
    assert (request.code, request.language, request.fresh) == ("typed", "python", True)
    assert (request.limits.cpu_ms, request.limits.wall_seconds) == (7, 2.0)


def test_bash_writes_what_it_wrote_and_ends_as_it_ended(handiwork, box, tmp_path) -> None:
    (tmp_path / "a.sh").write_text("echo out")
    done = handiwork("sandbox", "code", box, str(tmp_path / "a.sh"))
    assert (done.code, done.out, done.err) == (3, "out\n", "echo out\nerr\n")
    told = handiwork("sandbox", "code", box, "-l", "bash", "-e", "echo out", "--json")
    assert told.code == 0


def test_what_fails_is_told_and_is_a_failure(handiwork, box, tmp_path) -> None:
    done = handiwork("sandbox", "code", box, "-e", "fail")
    assert (done.code, done.out) == (1, "")
    assert "TypeError: no" in done.err
    done = handiwork("sandbox", "code", box, "-e", "gone")
    assert done.code == 1
    assert "the cell is gone" in done.err
    (tmp_path / "raw.js").write_bytes(b"\xff")
    for path, why in ((tmp_path / "none.js", "No such file"), (tmp_path / "raw.js", "no UTF-8")):
        done = handiwork("sandbox", "code", box, str(path))
        assert (done.code, done.out) == (2, "")
        assert why in done.err
    assert handiwork("sandbox", "code", box, "-l", "ruby", "-e", "1").code == 2
