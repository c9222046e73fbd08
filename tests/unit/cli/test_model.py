"""`handiwork model …`: a key goes in over standard input and is never printed."""

import json

KEY = "a-very-secret-key"
ADD = ("model", "add", "qwen", "--kind", "openai", "--base-url", "http://127.0.0.1:1/v1")


def test_its_life(api, handiwork, typed) -> None:
    typed(f"{KEY}\n".encode())
    done = handiwork(*ADD, "--model", "qwen3:8b", "--tokens", "32768", "4096", "--key")
    assert done.out == "model qwen at http://127.0.0.1:1/v1, with a key\n"
    assert (done.code, done.err) == (0, "")
    assert api(api.served.store.control_secrets.get("model-key/qwen")) == KEY
    listed = handiwork("model", "list", "--json")
    (row,) = json.loads(listed.out)
    assert (row["name"], row["context_tokens"], row["has_key"]) == ("qwen", 32768, True)
    assert KEY not in listed.out
    assert handiwork("model", "rm", "qwen").code == 0
    assert handiwork("model", "list", "--json").out == "[]\n"
    assert handiwork("model", "rm", "qwen").code == 2


def test_one_that_cannot_be(api, handiwork, typed) -> None:
    assert handiwork(*ADD[:4], "other", *ADD[5:]).code == 2
    assert handiwork(*ADD, "--tokens", "1000", "900").code == 2
    typed(b"")
    assert handiwork(*ADD, "--key").code == 2
    assert handiwork("model", "list", "--json").out == "[]\n"
