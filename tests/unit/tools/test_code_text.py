"""Code out of the blocks that models put it in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.code_text import broken, imports_awaited, unfenced


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```\n1 + 1\n```", "1 + 1"),
        ("```js\n1 + 1\n```", "1 + 1"),
        ("```JavaScript title=a.js\n1 + 1\n```\n\n", "1 + 1"),
        ("\n\n```python\nif x:\n    y()\n```", "if x:\n    y()"),
        ("\ufeff```js\r\n1\r\n2\r\n```\r\n", "1\r\n2\r"),
        ("~~~ts\n1\n~~~", "1"),
        ("````md\n1\n````", "1"),
        ("Here it is:\n\n```js\n1\n```\n\nIt gives 1.", "1"),
        ("1. first\n   ```py\n   if x:\n       y()\n\n   ```", "if x:\n    y()\n"),
        ("Use `fetch`:\n```js\nfetch(u)\n```", "fetch(u)"),
        ("```js\n1 + 1```", "1 + 1"),
        ("```js\n1 + 1```  \n", "1 + 1"),
        ("```js\n```", ""),
        ("```js 1 + 1```", "1 + 1"),
        ("\ufeff ``` 1 + 1 ```\n", "1 + 1"),
        ("```Python3 1 + 1```", "1 + 1"),
        ("js\n1 + 1", "1 + 1"),
        ("\ufeffPython\r\n1 + 1", "1 + 1"),
        ("```py\nt = '''\n```sh\nls\n```\n'''\n```", "t = '''\n```sh\nls\n```\n'''"),
    ],
)
def test_one_block_is_its_code(text, code):
    assert unfenced(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 + 1",
        "```",
        "```js",
        "```js\n1 + 1",
        "```js\n1\n```\nand\n```js\n2\n```",
        "```js\n1\n```\nand\n```\n2\n```",
        "first\n```js\n1\n```\nsecond\n```js\n2\n```",
        "`1 + 1`",
        "```js```",
        "```js 1``` and ```js 2```",
        "```js\t```",
        't = """\n```js\n1\n```\n"""\nprint(t)',
        "t = '''\n```\n1\n```\n'''",
        "const t = `\n```js\n1\n```\n`",
        "/*\n```js\nf()\n```\n*/\nf()",
        "// ```js\n// f()\n// ```\nf()",
        "const t = `\\`\\`\\`\n1\n\\`\\`\\``",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert unfenced(text) == text


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("```js\n1\n```\nand\n```js\n2\n```", "several blocks"),
        ("\n  ~~~\n1\n~~~\n~~~\n2\n~~~", "several blocks"),
        ("```js\n1 + 1", "does not end"),
        ("\ufeff```", "does not end"),
        ("", None),
        ("\n", None),
        ("1 + 1\n```", None),
        ("const t = `\n```js\n1\n```\n`", None),
    ],
)
def test_what_is_still_in_a_fence_is_told(code, problem):
    told = broken(code)
    assert told is None if problem is None else problem in told


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("import a from './a.mjs'\na", "const { default: a } = await import('./a.mjs');\na"),
        (
            'import { a, b as c, } from "./a.mjs"; a',
            'const { a, b: c } = await import("./a.mjs"); a',
        ),
        ("import * as a from './a.mjs';", "const a = await import('./a.mjs');"),
        (
            "import d, * as a from './a.mjs';",
            "const a = await import('./a.mjs'); const { default: d } = a;",
        ),
        (
            "import d, {a} from './a.mjs';",
            "const { default: d, a } = await import('./a.mjs');",
        ),
        (
            "// one\nimport {\n  a,\n} from './a.mjs'; /* two */ import './b.mjs'\na",
            "// one\nconst { a } = await import('./a.mjs');\n\n /* two */ await import('./b.mjs');\na",
        ),
    ],
)
def test_imports_are_awaited(code, made):
    assert imports_awaited(code) == made
    assert made.count("\n") == code.count("\n")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "1 + 1",
        "import './a.mjs';\nexport default 1",
        "import('./a.mjs')",
        "import.meta.url",
        "importer from './a.mjs'",
        "import { 'a b' as c } from './a.mjs'",
        "import a from './a.json' with { type: 'json' }",
        "import { a // one\n} from './a.mjs'",
        "const t = `\nimport a from './a.mjs'\n`",
    ],
)
def test_what_is_no_plain_import_stays(code):
    assert imports_awaited(code) == code


SIZE = 300_000


@pytest.mark.parametrize(
    "text",
    [
        f"```{' ' * SIZE}`x",
        f"``` {' ' * SIZE}",
        f"``` {'x ' * SIZE}",
        f"{' ' * SIZE}js",
        "\n" * SIZE,
        f"import {' ' * SIZE}x",
        f"import a{' ' * SIZE},{' ' * SIZE}",
        f"import {{{'a, ' * SIZE}",
        f"import {{{' ' * SIZE}a{' ' * SIZE}as{' ' * SIZE}}} from 'a'",
        f"import * as {'a' * SIZE}",
        f"import {'a' * SIZE}",
        "/*" * SIZE,
        "import 'a';\n" * (SIZE // 10),
        f"{'`' * SIZE}\n{'~' * SIZE}",
    ],
    ids=range(14),
)
def test_no_text_takes_longer_than_its_length(text):
    code = imports_awaited(unfenced(text))
    assert broken(code) is None or code.lstrip().startswith("`")


@given(st.text(st.sampled_from("import *as{},from'a./;\n ")))
def test_any_text_has_its_lines(text):
    assert imports_awaited(text).count("\n") == text.count("\n")


@given(st.text(st.sampled_from("`~ \njs1\r'\"/*\ufeff"), max_size=60))
def test_any_text_gives_a_part_of_it(text):
    code = unfenced(text)
    assert len(code) <= len(text)
    rest = iter(text)
    assert all(letter in rest for letter in code)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="`~\n"), max_size=20)),
    st.sampled_from(["", "js", "python", "c++"]),
)
def test_what_is_put_into_a_block_comes_out_of_it(lines, word):
    code = "\n".join(lines)
    assert unfenced(f"```{word}\n{code}\n```") == code
