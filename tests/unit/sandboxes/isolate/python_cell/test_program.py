"""Code as models write it: what its value is."""

import asyncio

import pytest

from handiwork.sandboxes.isolate.python_cell.program import prepared


def value_of(code, **names):
    return asyncio.run(prepared(code, "/workspace/code.py")(names))


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("x = 2", None),
        ("x = 2\nx", 2),
        ("", None),
        ("return 4", 4),
        ("if True:\n    return 5\nreturn 6", 5),
        ("def f():\n    return 1\nf() + 1", 2),
        ("import asyncio\nawait asyncio.sleep(0)\n7", 7),
        ("async def f():\n    return 8\nf()", 8),
        ("async def main():\n    return 9", 9),
        ("def main(a=1, *, b=2, **more):\n    return a + b", 3),
        ("def main(a):\n    return a", None),
        ("class A:\n    def f(self):\n        return 1\nA().f()", 1),
        ("for i in range(3):\n    pass\ni", 2),
        ("[await f(i) for i in range(2)]", [0, 1]),
        ("import asyncio\nawait asyncio.gather(f(1), f(2))", [1, 2]),
        ("\ufeff1 + 1", 2),
        ('#!/usr/bin/env python3\n# -*- coding: latin-1 -*-\n"é"', "é"),
        ("x = 1\r\nif x:\r\n    x = 2\r\nx\r\n", 2),
        ("1 + 1;", 2),
        ("lambda: 3", 3),
        ("lambda x: 3 if x else 4\n5", 5),
        ("def f():\n    return 6\nf", 6),
        ("import math\nfrom os import path\n\ndef main():\n    return math.floor(7.5)\n", 7),
        ("def main():\n    return lambda: 1\n(main()(), 2)", (1, 2)),
        ("    x = 8\n    x\n", 8),
        ("import asyncio\nasync def main():\n    return 9\nasyncio.run(main())", 9),
        (
            "import asyncio\nasync def main():\n    out.append(1)\n"
            'if __name__ == "__main__":\n    asyncio.run(main())\nout',
            [1],
        ),
        ("import asyncio\n[asyncio.run(f(n)) for n in (1, 2)]", [1, 2]),
    ],
)
def test_its_value(code, value):
    async def f(given):
        return given

    assert value_of(code, f=f, out=[], __name__="__main__") == value


def test_what_it_names_stays_and_nothing_of_ours_does():
    names = {}
    asyncio.run(prepared("a = 1\na", "/workspace/code.py")(names))
    asyncio.run(prepared("return a", "/workspace/code.py")(names))
    assert set(names) - {"__builtins__"} == {"a"}


def test_errors_know_their_place():
    with pytest.raises(SyntaxError) as error:
        prepared("a =\n", "/workspace/code.py")
    assert (error.value.filename, error.value.lineno) == ("/workspace/code.py", 1)
    with pytest.raises(ZeroDivisionError) as divided:
        value_of("a = 1\n1 / 0")
    assert divided.traceback[-1].lineno == 1  # counted from 0


def test_it_does_not_inherit_what_we_import_from_the_future():
    assert value_of("def f(a: b): pass", b=int) is None
