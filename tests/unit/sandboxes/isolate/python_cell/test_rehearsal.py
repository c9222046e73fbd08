"""The rehearsal of the zygote: it goes every way, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

from handiwork.sandboxes import isolate

REHEARSED = """
import sys; sys.path.insert(0, sys.argv[1])
from python_cell import rehearsal, session
told = []
class Heard(rehearsal._Host):
    def send(self, text):
        told.append(text)
        super().send(text)
rehearsal._Host = Heard
before = sys.stdout, sys.stderr, dict(__import__("linecache").cache)
rehearsal.rehearse()
after = sys.stdout, sys.stderr, dict(__import__("linecache").cache)
print(before == after, len([one for one in told if '"done"' in one]))
for one in sorted({one[:200] for one in told if '"done"' in one}): print(one)
"""


def test_each_way_is_gone_and_nothing_is_left() -> None:
    argv = [sys.executable, "-I", "-S", "-c", REHEARSED, str(Path(isolate.__file__).parent)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    first, failed, worked, called = done.stdout.splitlines()
    assert first == "True 60"
    assert failed.startswith('{"t":"done","ok":false,"e":{"name": "ValueError", "message": "no"')
    assert called == '{"t":"done","ok":true,"v":{}}'
    assert (
        worked == '{"t":"done","ok":true,"v":{"words":["some","words"],"bytes":{"$bytes":"MQ=="}}}'
    )
    assert done.stderr == ""
