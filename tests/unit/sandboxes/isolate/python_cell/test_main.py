"""The zygote of Python: what it has loaded, and what counts towards its limit."""

import subprocess
import sys
from pathlib import Path

from handiwork.sandboxes import isolate
from handiwork.sandboxes.isolate.python_cell.main import standard_modules

LOADED = (
    "import sys; sys.path.insert(0, sys.argv[1]); from python_cell import main; main.load();"
    "print(*sorted(sys.modules))"
)


def test_the_standard_library_is_there_before_it_is_asked_for():
    argv = [sys.executable, "-I", "-S", "-c", LOADED, str(Path(isolate.__file__).parent)]
    loaded = set(subprocess.run(argv, capture_output=True, check=True, text=True).stdout.split())
    assert loaded >= {
        *("asyncio", "collections.abc", "csv", "ctypes", "datetime", "decimal", "email.mime.text"),
        *("html.parser", "json", "logging.handlers", "re", "sqlite3", "statistics", "tomllib"),
        *("unittest.mock", "urllib.parse", "uuid", "xml.etree.ElementTree", "zoneinfo", "zipfile"),
    }
    assert not loaded & {"antigravity", "this", "idlelib", "tkinter", "turtle"}
    assert not any(name.startswith("handiwork") for name in loaded)


def test_none_of_its_tests_is_loaded():
    assert not [name for name in standard_modules() if {"test", "tests"} & set(name.split("."))]


def test_what_a_process_has():
    """Counted in one of its own: what an older one freed is taken again, and counts already."""
    code = (
        "from handiwork.sandboxes.isolate.python_cell.main import data_bytes\n"
        "before = data_bytes()\n"
        "held = bytearray(50 << 20)\n"
        "print(data_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 40 << 20 < int(done.stdout) < 60 << 20
