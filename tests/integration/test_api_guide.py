"""The example of the client's guide does what the guide says."""

import re
from pathlib import Path
from typing import Any

from control_plane_process import ControlPlane
from handiwork import Handiwork

GUIDE = Path(__file__).parents[2] / "docs/guides/client.md"


async def test_the_example_runs(driven_plane: ControlPlane) -> None:
    [example] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, GUIDE.name, "exec"), names)
    async with Handiwork(socket=driven_plane.socket) as hw:
        await names["main"](hw)
        assert await hw.sandboxes.list() == []
