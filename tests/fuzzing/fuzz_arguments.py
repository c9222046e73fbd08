"""What code gives tools, and the text it stands in: read, or refused with a ToolFailedError."""

import atheris
import msgspec
from target import PLANTED, fuzz, must

with atheris.instrument_imports(
    include=["handiwork.tools.code_arguments", "handiwork.tools.code_text"]
):
    from handiwork.model.errors import ToolFailedError
    from handiwork.tools.code_arguments import PARTS, converted, named
    from handiwork.tools.code_text import broken, imports_awaited, unfenced


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: str
    mode: int | None = None


def test(data: bytes) -> None:
    argument = msgspec.Raw(data)
    try:
        one = converted("write", argument, Write)
        must(type(one.path) is str and type(one.content) is str, "what is no text")
        must(PLANTED != "arguments" or one.mode is None, "planted")
    except ToolFailedError:
        pass
    try:
        given = named("tool", argument, ("a", "b"))
        must(all(type(name) is str for name in given), "a name that is no text")
        must(len(given) <= PARTS, "too many values")
    except ToolFailedError:
        pass
    text = data.decode("utf-8", "replace")
    code = unfenced(text)
    must(len(code) <= len(text), "more text than there was")
    must(broken(code) is None or "```" in code or "~~~" in code, "a fence that is not there")
    must(imports_awaited(code).count("\n") == code.count("\n"), "lines that moved")


if __name__ == "__main__":
    fuzz(test)
