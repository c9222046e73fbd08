"""`@cloudflare/codemode` as an oracle: what it shows code of tools, asked in one process of Node."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from code_schemas import Tools

ROOT = Path(__file__).parents[1]
INSTALLED = ROOT / ".peers/oracle"
PROGRAM = Path(__file__).parent / "oracle/types.mjs"


def declarations(sets: Sequence[Tools]) -> list[str]:
    """Return what it declares of each set of tools; `./run test --all` installs it."""
    asked = "".join(f"{json.dumps(tools)}\n" for tools in sets)
    argv = ["node", str(PROGRAM), str(INSTALLED)]
    done = subprocess.run(
        argv, input=asked, capture_output=True, text=True, timeout=120, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
