"""`workspace.*` of guest code: its files, by the paths that every tool of the session knows them by."""

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.model.sandbox import FileInfo, FileKind
from handiwork.sandboxes.isolate.arguments import Boxed, Content, boxed, content, taken
from handiwork.sandboxes.isolate.files import WorkspaceFiles
from handiwork.sandboxes.isolate.workspace import HOME

READ_BYTES = 16 << 20
"""Of a file at once: it is one frame, in base64."""
MODULE_BYTES = 4 << 20
LISTED = 10_000


class _Path(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str


class _Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    offset: int = 0
    limit: int | None = None


class _Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: Content
    mode: int = 0o644


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str = HOME


class _Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    recursive: bool = False


class _Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    target: str


class _Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    paths: tuple[str, ...]


class WorkspaceCalls:
    """Those of one sandbox."""

    def __init__(self, files: WorkspaceFiles) -> None:
        self._files = files
        self._calls: Mapping[str, Callable[[str, msgspec.Raw], Awaitable[Any]]] = {
            "read": self._read,
            "readbytes": self._read_bytes,
            "write": self._write,
            "append": self._append,
            "list": self._list,
            "stat": self._stat,
            "exists": self._exists,
            "mkdir": self._mkdir,
            "delete": self._delete,
            "move": self._move,
            "tree": self._tree,
            "module": self._module,
            "findmodule": self._find_module,
        }

    async def serve(self, name: str, argument: msgspec.Raw) -> Any:
        """Answer a call; `readBytes` and `read_bytes` are the same. ToolFailedError says what is wrong."""
        call = self._calls.get(name.replace("_", "").lower())
        if call is None:
            known = "read, readBytes, write, append, list, stat, exists, mkdir, delete, move"
            raise ToolFailedError(
                f"workspace.{name[:40]}: there is no such call; there are {known}"
            )
        try:
            return await call(f"workspace.{name}", argument)
        except GuestError as error:
            raise ToolFailedError(f"workspace.{name}: {error}") from None

    async def _read(self, name: str, argument: msgspec.Raw) -> str:
        data = await self._bytes(taken(name, argument, _Read))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ToolFailedError(f"{name}: it is no UTF-8; use workspace.readBytes") from None

    async def _read_bytes(self, name: str, argument: msgspec.Raw) -> Boxed:
        return boxed(await self._bytes(taken(name, argument, _Read)))

    async def _bytes(self, given: _Read) -> bytes:
        path = absolute(given.path)
        if given.limit is None and (await self._files.stat(path)).size - given.offset > READ_BYTES:
            raise ToolFailedError(
                f"{given.path}: more than {READ_BYTES >> 20} MiB; read it in parts, by offset and limit"
            )
        limit = min(given.limit or READ_BYTES, READ_BYTES)
        return await self._files.read(path, offset=max(0, given.offset), limit_bytes=limit)

    async def _write(self, name: str, argument: msgspec.Raw) -> int:
        given = taken(name, argument, _Write)
        data = content(given.content)
        await self._files.write(absolute(given.path), data, mode=given.mode & 0o777)
        return len(data)

    async def _append(self, name: str, argument: msgspec.Raw) -> int:
        given = taken(name, argument, _Write)
        path, more = absolute(given.path), content(given.content)
        former = await self._files.read(path) if await self._is_there(path) else b""
        await self._files.write(path, former + more)
        return len(former) + len(more)

    async def _list(self, name: str, argument: msgspec.Raw) -> list[dict[str, Any]]:
        path = absolute(taken(name, argument, _List).path)
        return [_told(one) for one in await self._files.list(path, limit=LISTED)]

    async def _tree(self, name: str, argument: msgspec.Raw) -> dict[str, Any]:
        """Return all paths with what is another number once a file is written anew, 0 for directories."""
        taken(name, argument, _Nothing)
        nodes = await self._files.tree(limit=LISTED + 1)
        entries = [
            (node.path, 0 if node.directory else node.id, node.size, node.mode)
            for node in nodes[:LISTED]
        ]
        return {"entries": entries, "more": len(nodes) > LISTED}

    async def _stat(self, name: str, argument: msgspec.Raw) -> dict[str, Any]:
        return _told(await self._files.stat(absolute(taken(name, argument, _Path).path)))

    async def _exists(self, name: str, argument: msgspec.Raw) -> bool:
        path = absolute(taken(name, argument, _Path).path)
        try:
            await self._files.stat(path)
        except GuestError:
            return False
        return True

    async def _mkdir(self, name: str, argument: msgspec.Raw) -> None:
        await self._files.mkdir(absolute(taken(name, argument, _Path).path))

    async def _delete(self, name: str, argument: msgspec.Raw) -> None:
        given = taken(name, argument, _Delete)
        await self._files.remove(absolute(given.path), recursive=given.recursive)

    async def _move(self, name: str, argument: msgspec.Raw) -> None:
        given = taken(name, argument, _Move)
        await self._files.move(absolute(given.source), absolute(given.target))

    async def _module(self, name: str, argument: msgspec.Raw) -> str:
        path = absolute(taken(name, argument, _Path).path)
        data = await self._files.read(path, limit_bytes=MODULE_BYTES + 1)
        if len(data) > MODULE_BYTES:
            raise ToolFailedError(f"{path}: a module of more than {MODULE_BYTES >> 20} MiB")
        return data.decode("utf-8", "replace")

    async def _find_module(self, name: str, argument: msgspec.Raw) -> dict[str, str] | None:
        for path in taken(name, argument, _Paths).paths[:64]:
            if await self._is_there(path):
                text = (await self._files.read(path, limit_bytes=MODULE_BYTES)).decode(
                    "utf-8", "replace"
                )
                return {"path": path, "text": text}
        return None

    async def _is_there(self, path: str) -> bool:
        try:
            return (await self._files.stat(path)).kind is FileKind.FILE
        except GuestError:
            return False


def absolute(path: str) -> str:
    """Return a path as guest code means it: one that does not begin with `/` is of the workspace."""
    return path if path.startswith("/") else posixpath.join(HOME, path)


def _told(info: FileInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "type": info.kind.value,
        "size": info.size,
        "mtimeMs": info.mtime_ns // 1_000_000,
    }
