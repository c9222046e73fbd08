"""The SDK's own worker, serving one environment: `python sdk_environment.py URL ENVIRONMENT FOLDER`.

The environment's key is the first line of standard input; it serves until standard input ends. Its
tools are the SDK's, and the custom tool `wait`, which runs `sleep`.
"""

import asyncio
import sys

from anthropic import AsyncAnthropic
from anthropic.lib.tools import beta_async_tool
from anthropic.lib.tools.agent_toolset import beta_agent_toolset_20260401


@beta_async_tool(name="wait")
async def wait(seconds: str) -> str:
    """Sleep.

    Args:
        seconds: how long
    """
    child = await asyncio.create_subprocess_exec("/bin/sleep", seconds)
    return f"exit code {await child.wait()}"


async def serve(url: str, environment_id: str, folder: str) -> None:
    key = sys.stdin.readline().strip()
    client = AsyncAnthropic(base_url=url, auth_token=key, api_key=None)
    served = client.beta.environments.work.worker(
        environment_id=environment_id,
        environment_key=key,
        workdir=folder,
        tools=lambda env: [*beta_agent_toolset_20260401(env), wait],
    )
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(served.run())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        serving.cancel()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
