"""Let sessions happen on a brain that misbehaves and an engine that is killed, and judge them.

`python tests/chaos/run.py [--sessions 500] [--seed SEED]` prints its seed; the same seed makes the
same stories, faults and deaths. Exit 1 when a promise was broken.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from chaos.judge import judge  # noqa: E402
from chaos.plan import DEATHS, Plan  # noqa: E402
from chaos.world import play  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/chaos/run.py")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--deaths", type=float, default=DEATHS, help="of a session, roughly")
    parser.add_argument("--calm", action="store_true", help="no faults at all")
    parser.add_argument("--sabotage", default="", help="'no ledger' or 'no reconcile'")
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="handiwork-chaos-"))
    plan = Plan(options.seed, calm=options.calm, deaths=options.deaths)
    run = asyncio.run(play(plan, options.sessions, place, sabotage=options.sabotage))
    verdict = judge(run)
    print(f"{run.seconds:.1f} s", dict(verdict.seen), dict(run.done))
    for problem in verdict.problems:
        print(problem)
    if verdict.problems or options.keep:
        again = f"--sessions {options.sessions} --deaths {options.deaths}"
        print(f"kept in {place}; again: python tests/chaos/run.py --seed {options.seed} {again}")
    else:
        shutil.rmtree(place)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
