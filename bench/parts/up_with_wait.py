"""`handiwork up` as it is, with one custom tool more: `wait`, which runs `sleep` in the sandbox.

The stock tools that take long are ordered, so calls side by side need one of their own.
"""

from handiwork import __main__, app
from handiwork.model.sandbox import ExecRequest
from handiwork.tools.registry import Registry, tool
from handiwork.tools.toolset import stock


@tool("wait", description="sleeps")
async def wait(context, *, seconds: str) -> str:
    ended = await context.sandbox.exec(ExecRequest(argv=("/bin/sleep", seconds)))
    return f"exit code {ended.exit_code}"


def with_wait() -> Registry:
    registry = stock()
    registry.add(wait)
    return registry


if __name__ == "__main__":
    app.stock = with_wait
    __main__.main()
