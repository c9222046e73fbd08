"""A tier that keeps files wrongly is found out."""

import pytest

from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import FakeDriver, FakeFiles


async def _loses_mode(self, path, data, *, mode=0o644, parents=True):
    await KEPT["write"](self, path, data, parents=parents)


async def _ignores_parts(self, path, *, offset=0, limit_bytes=None):
    return await KEPT["read"](self, path) if limit_bytes != 0 else b""


async def _takes_zero_for_all(self, path, *, offset=0, limit_bytes=None):
    return await KEPT["read"](self, path, offset=offset, limit_bytes=limit_bytes or None)


async def _streams_all(self, path, *, offset=0, limit_bytes=None):
    async for piece in KEPT["read_stream"](self, path):
        yield piece


async def _keeps_what_came(self, path, pieces, *, mode=0o644, parents=True):
    try:
        async for piece in pieces:
            self._put(path, piece, mode, parents=parents)
    except Exception:
        return


async def _removes_all(self, path, *, recursive=False):
    await KEPT["remove"](self, path, recursive=True)


async def _copies(self, source, target):
    await self.write(target, await self.read(source))


async def _cuts(self, path, *, limit=10_000):
    return (await KEPT["list"](self, path, limit=limit))[:100]


VERBS = ("read", "write", "read_stream", "list", "remove", "move")
KEPT = {name: getattr(FakeFiles, name) for name in VERBS}
SABOTAGE = {
    "a file is written and read back": ("write", _loses_mode),
    "parts of a file are read": ("read", _ignores_parts),
    "nothing is a part too": ("read", _takes_zero_for_all),
    "removing says what it must not": ("remove", _removes_all),
    "a file is moved": ("move", _copies),
    "a large directory is listed whole": ("list", _cuts),
}


STREAMS = {
    "read_stream": (_streams_all, {"streams go both ways"}),
    "write_stream": (
        _keeps_what_came,
        {"streams go both ways", "a stream that breaks leaves what was there"},
    ),
}


@pytest.mark.parametrize("verb", STREAMS)
async def test_streams_are_found_out(verb, monkeypatch):
    wrong, names = STREAMS[verb]
    monkeypatch.setattr(FakeFiles, verb, wrong)
    found = [made async for made in selfcheck(FakeDriver(), areas=["files"])]
    assert {made.name for made in found if not made.ok} >= names


@pytest.mark.parametrize("name", SABOTAGE)
async def test_found_out(name, monkeypatch):
    verb, wrong = SABOTAGE[name]
    monkeypatch.setattr(FakeFiles, verb, wrong)
    found = [made async for made in selfcheck(FakeDriver(), areas=["files"])]
    assert [made.name for made in found if not made.ok] == [name]
