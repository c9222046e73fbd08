"""Modules that come from the workspace."""

import importlib
import sys
import traceback

import pytest

from handiwork.sandboxes.isolate.python_cell.modules import WorkspaceFinder

FILES = {
    "/workspace/cell_plain.py": "from cell_package.inner import value\ndouble = value * 2",
    "/workspace/cell_package/__init__.py": "name = __name__",
    "/workspace/cell_package/inner.py": "value = 21",
    "/workspace/jobs/cell_beside.py": "def fail():\n    raise ValueError('no')",
    "/workspace/cell_wrong.py": "a =",
}


@pytest.fixture
def finder():
    def ask(name, argument):
        assert name == "workspace.find_module"
        found = next((path for path in argument["paths"] if path in FILES), None)
        return None if found is None else {"path": found, "text": FILES[found]}

    made = WorkspaceFinder(ask)
    sys.meta_path.append(made)
    yield made
    sys.meta_path.remove(made)
    for name in [name for name in sys.modules if name.startswith("cell_")]:
        del sys.modules[name]


def test_a_module_a_package_and_what_it_holds(finder):
    module = importlib.import_module("cell_plain")
    assert (module.double, module.__file__) == (42, "/workspace/cell_plain.py")
    assert sys.modules["cell_package"].__path__ == ["/workspace/cell_package"]


def test_places_are_searched_in_order_and_a_stack_shows_its_lines(finder):
    finder.places = ("/workspace/jobs", "/workspace")
    module = importlib.import_module("cell_beside")
    with pytest.raises(ValueError, match="no") as error:
        module.fail()
    assert "raise ValueError('no')" in "".join(traceback.format_exception(error.value))


def test_what_is_not_there_and_what_is_wrong(finder):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("cell_none")
    with pytest.raises(SyntaxError) as error:
        importlib.import_module("cell_wrong")
    assert error.value.filename == "/workspace/cell_wrong.py"
