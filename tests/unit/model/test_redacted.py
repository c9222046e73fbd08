"""Whatever hides a field from `repr` hides it from pretty printers too."""

import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
from rich.pretty import pretty_repr

import handiwork
from handiwork.model.redacted import shown_as_repr
from handiwork.model.session import WorkItem


def structs(of: type[msgspec.Struct] = msgspec.Struct) -> Iterator[type[msgspec.Struct]]:
    for kind in of.__subclasses__():
        yield kind
        yield from structs(kind)


def test_every_type_with_a_repr_of_its_own_is_pretty_printed_by_it() -> None:
    for module in pkgutil.walk_packages(handiwork.__path__, "handiwork."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    own = [
        kind
        for kind in structs()
        if kind.__module__.startswith("handiwork.") and "__repr__" in vars(kind)
    ]
    assert WorkItem in own
    assert [kind for kind in own if vars(kind).get("__rich_repr__") is not shown_as_repr] == []


def test_a_work_items_secret_is_not_printed() -> None:
    item = WorkItem(id="work_1", environment_id="env_1", kind="session", secret="sk-hidden")
    assert "hidden" not in pretty_repr(item) + repr(item)
