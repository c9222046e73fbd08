"""What every fuzz target does alike: `NAME.py CORPUS -max_total_time=…` under the fuzzer, `PLANT` naming a mistake to find.

A target is one function of bytes. It raises for what must not be, and nothing else.
"""

import os
import sys
from collections.abc import Callable

import atheris

PLANTED = os.environ.get("PLANT", "")
"""A mistake that the target makes on purpose, so that its test shows that it would be found."""


def fuzz(one: Callable[[bytes], None]) -> None:
    """Run it for as long as the command line says; never returns."""
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def must(holds: bool, what: str) -> None:
    """Raise AssertionError for what does not hold; an assert might be left out."""
    if not holds:
        raise AssertionError(what)
