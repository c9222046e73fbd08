"""The checks themselves: each finds the bad sample, and lets the good one pass."""

import pytest

from style import places, sizes, words

BODY = "    x = 1\n" * 61


@pytest.mark.parametrize(
    ("functions", "text", "expected"),
    [
        (sizes.python_functions, f"def long():\n{BODY}", ["long"]),
        (sizes.python_functions, f"async def long():\n{BODY}", ["long"]),
        (sizes.python_functions, 'def told():\n    """A.\n' + "\n" * 99 + '    """\n', []),
        (sizes.c_functions, f"static int\nlong_one(int a)\n{{\n{BODY}}}\n", ["long_one"]),
        (sizes.c_functions, f"int long_one(int a,\n    int b) {{\n{BODY}}}\n", ["long_one"]),
        (sizes.c_functions, f"const int t[N(2)] = {{\n{BODY}}};\nint f(void) {{ }}\n", []),
        (sizes.c_functions, f"struct s {{\n{BODY}}};\n", []),
        (sizes.c_functions, 'int f(void) {\n  p("{"); /* { */\n}\n' * 40, []),
        (sizes.shell_functions, f"long_one() {{\n{BODY}}}\n", ["long_one"]),
        (sizes.shell_functions, "short() {\n    :\n}\n" * 40, []),
    ],
)
def test_long_functions(functions, text: str, expected: list[str]) -> None:
    found = sizes.long_functions(functions(text))
    assert [fault.split(" ", 1)[0] for fault in found] == expected


def test_long_files() -> None:
    assert sizes.long_file("\n" * 601)
    assert not sizes.long_file("\n" * 600)


@pytest.mark.parametrize("path", ["utils.py", "test_helpers.py", "session_manager.c", "base.sh"])
def test_names_that_say_nothing(path: str) -> None:
    assert words.banned_name(path)


@pytest.mark.parametrize("path", ["baseline.py", "proxy.py", "test_commonmark.py"])
def test_names_that_say_something(path: str) -> None:
    assert not words.banned_name(path)


@pytest.mark.parametrize(
    ("text", "suffix", "count"),
    [
        ("x = 1  # " + "previously two\n", ".py", 1),
        ('"""It ' + 'used to be."""\n', ".py", 1),
        ("/* it was" + " renamed */\n", ".c", 1),
        ("ok # the " + "legacy way\n", ".sh", 1),
        ("# is used to seal; no longer than this\n", ".py", 0),
        ('text = "no ' + 'longer"\n', ".py", 0),
    ],
)
def test_history(text: str, suffix: str, count: int) -> None:
    assert len(words.history(text, suffix)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x = 1  # " + "noqa\n", 2),
        ("x = 1  # " + "noqa: S603\n", 1),
        ("x = 1  # " + "type: ignore\n", 2),
        ("x = 1  # " + "noqa: S603 - the arguments are ours\n", 0),
        ("# The arguments are ours.\nx = 1  # " + "type: ignore[arg-type]\n", 0),
        ('x = "# ' + 'noqa"\n', 0),
    ],
)
def test_silenced(text: str, count: int) -> None:
    assert len(words.silenced(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('f"{api_key}"', 1),
        ('f"{self.private_key!r}"', 1),
        ('def f(held: "SealedSecret"):\n    return f"{held}"', 1),
        ('f"{secret_name} {len(api_key)}"', 0),
    ],
)
def test_formatted_secrets(text: str, count: int) -> None:
    assert len(words.formatted_secrets(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("asyncio.create_task(x())", 1),
        ("asyncio.get_running_loop().create_task(x())", 1),
        ("self._loop.create_task(x()); loop.create_task(x())", 1),
        ("group.create_task(x())", 0),
    ],
)
def test_ownerless_tasks(text: str, count: int) -> None:
    assert len(words.ownerless_tasks(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("see /wo" + "rk/main", 1),
        ("as DESIGN" + " §8 says", 1),
        ("https://files.python" + "hosted.org/x", 1),
        ("index = https://py" + "pi.org/simple", 1),
        ("{state}/work/x, state/work/, /workspace/a, api.anthropic.com", 0),
    ],
)
def test_private(text: str, count: int) -> None:
    assert len(places.private(text)) == count


def test_unproven() -> None:
    head = "| promise | proof |\n|---|---|\n"
    held = {"tests/a.py": "def test_one(): ..."}
    assert not places.unproven(head + "| x | `tests/a.py::test_one` |\n", held.get)
    assert places.unproven(head + "| x | trust us |\n", held.get)
    assert places.unproven(head + "| x | `tests/a.py::test_two` |\n", held.get)
    assert places.unproven(head + "| x | `bench/b.py` |\n", held.get)


def test_dead_links() -> None:
    page = "[a](there.md) [b](https://example.org/x) [c](#here) [d](gone.md#part)"
    assert places.dead_links(page, lambda target: target == "there.md") == ["link to gone.md"]


def test_unlocked() -> None:
    lock = "one-x==1.2 ; python_version > '3' \\\n    --hash=sha256:0\n"
    assert not places.unlocked(["One_X>=1,<2"], lock)
    assert places.unlocked(["one-x>=2"], lock)
    assert places.unlocked(["two>=1"], lock)
