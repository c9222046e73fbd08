"""What hooks are written with."""

import re
from pathlib import Path

from handiwork.config import load
from handiwork.hooks import Context, Headers
from handiwork.model.policy import HookRule, parse_policy

GUIDE = Path(__file__).parents[2] / "docs/guides/hooks.md"


def test_fields_by_any_case_of_their_name() -> None:
    headers = Headers([("X-A", "1"), ("x-b", "2"), ("x-A", "3")])
    assert (headers.get("x-a"), headers.all("X-a"), "X-B" in headers) == ("1", ["1", "3"], True)
    headers.set("X-A", "4")
    assert list(headers) == [("x-b", "2"), ("x-a", "4")]
    headers.remove("X-B")
    headers.remove("x-none")
    headers.add("x-a", "5")
    assert (len(headers), headers.all("x-a")) == (2, ["4", "5"])
    assert headers.get("x-none", "d") == "d"


def test_neither_headers_nor_a_context_show_values() -> None:
    context = Context(
        tenant="t",
        agent_id="",
        session_id="",
        sandbox_id="",
        tool="",
        tool_use_id="",
        directory=Path("/srv"),
        http=None,  # type: ignore[arg-type]  # nothing is sent
        secrets={"key": "sk-0123456789"},
    )
    assert "sk-0123456789" not in repr(context)
    assert "sk-0123456789" not in repr(Headers([("authorization", "sk-0123456789")]))


def test_the_guide_shows_what_holds(tmp_path: Path) -> None:
    settings, policy = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "handiwork.toml").write_text(settings)
    assert load(tmp_path / "handiwork.toml", {}).hooks.enabled
    [rule] = parse_policy(f'name = "orders"\n{policy}', format="toml").rules
    assert isinstance(rule, HookRule)
    [example] = re.findall(r"```python\n# .*?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shipped = (GUIDE.parents[2] / "examples/hooks/add_header.py").read_text()
    assert example.strip() in shipped
