"""Code out of the blocks that models put it in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.code_text import broken, unfenced


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
