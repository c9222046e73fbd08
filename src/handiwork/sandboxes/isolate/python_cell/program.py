"""Code as models write it, made into something that can be run: its last expression is its value. Pure."""

import ast
import linecache
import textwrap
import types
from collections.abc import Callable, Iterable
from typing import Any

VALUE = "__value__"
_WHOLE = "__whole__"
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.GeneratorExp)
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def prepared(text: str, name: str) -> Callable[[dict[str, Any]], Any]:
    """Return what runs it in a namespace and returns its value, or an awaitable of it; SyntaxError.

    One that returns is the body of a function; one that is a single function beside imports, or has a
    function as its value, is that function, called. It may be indented as a whole.
    """
    text = text.removeprefix("\ufeff")
    tree: ast.Module = _Awaiting().visit(_parsed(text, name))
    if _returns(tree.body):
        tree = _as_function(tree)
    elif tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        target = ast.copy_location(ast.Name(VALUE, ast.Store()), last)
        tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
    called = _only_function(tree.body)
    code = compile(tree, name, "exec", flags=_FLAGS, dont_inherit=True)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)

    async def run(namespace: dict[str, Any]) -> Any:
        namespace.pop(VALUE, None)
        begun = types.FunctionType(code, namespace)()
        if isinstance(begun, types.CoroutineType):
            await begun
        value = namespace[called]() if called else namespace.pop(VALUE, None)
        namespace.pop(_WHOLE, None)
        if not called and _needs_nothing(value):
            value = value()
        return await value if _is_awaitable(value) else value

    return run


def _parsed(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text, name)
    except IndentationError:
        dedented = textwrap.dedent(text)
        if dedented == text:
            raise
    return ast.parse(dedented, name)


class _Awaiting(ast.NodeTransformer):
    """Makes `asyncio.run(x)` outside of every function `await x`: the loop that it would start runs already."""

    def visit(self, node: ast.AST) -> Any:
        """Return what stands for a node."""
        return node if isinstance(node, _SCOPES) else super().visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Return what stands for a call."""
        self.generic_visit(node)
        match node:
            case ast.Call(ast.Attribute(ast.Name("asyncio"), "run"), [awaited], []):
                return ast.copy_location(ast.Await(awaited), node)
        return node


def _is_awaitable(value: object) -> bool:
    return hasattr(type(value), "__await__") or isinstance(value, types.CoroutineType)


def _needs_nothing(value: object) -> bool:
    """Say whether it is a function of the code that can be called without an argument."""
    if not isinstance(value, types.FunctionType):
        return False
    given = value.__code__
    required = given.co_argcount - len(value.__defaults__ or ())
    return required <= 0 and given.co_kwonlyargcount <= len(value.__kwdefaults__ or {})


def _returns(body: Iterable[ast.AST]) -> bool:
    """Say whether code returns outside of every function."""
    for node in body:
        if isinstance(node, ast.Return):
            return True
        if not isinstance(node, _SCOPES) and _returns(ast.iter_child_nodes(node)):
            return True
    return False


def _as_function(tree: ast.Module) -> ast.Module:
    made = ast.parse(f"async def {_WHOLE}(): pass")
    function = made.body[0]
    function.body = tree.body  # type: ignore[attr-defined]  # it is the function that was just parsed
    return ast.fix_missing_locations(made)


def _only_function(body: list[ast.stmt]) -> str:
    """Return the name of the function that is all there is but imports, and needs no argument; "" for other code."""
    rest = [one for one in body if not isinstance(one, (ast.Import, ast.ImportFrom))]
    if len(rest) != 1 or not isinstance(rest[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        return ""
    given = rest[0].args
    required = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    needed = required or any(one is None for one in given.kw_defaults)
    return "" if needed else rest[0].name
