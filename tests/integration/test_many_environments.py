"""Several environments in one control plane: one that is refused does not stop the others."""

import time
from pathlib import Path

from brain_process import BrainProcess, call
from control_plane_process import ControlPlane, running
from handiwork import Handiwork
from handiwork.model.environment import EnvironmentStatus
from outer_brain import config, results, say

REFUSED = """
[[environments]]
id = "env_of_another_key"
base_url = "{url}"
key_file = "{key_file}"
"""


async def told(plane: ControlPlane) -> dict[str, EnvironmentStatus]:
    async with Handiwork(socket=plane.socket) as hw:
        return {one.id: one for one in await hw.environments.list()}


async def test_one_that_is_refused_is_told_and_the_other_served(tmp_path: Path) -> None:
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        settings = config(brain, tmp_path)
        settings += REFUSED.format(url=brain.base_url, key_file=tmp_path / "environment-key")
        with running(tmp_path / "host", config=settings) as plane:
            session_id = say(brain, call("bash", command="echo served"))
            assert results(brain, session_id, 1) == ["served"]
            limit = time.monotonic() + 20
            while (found := await told(plane))["env_of_another_key"].state != "refused":
                assert time.monotonic() < limit, found
        refused, good = found["env_of_another_key"], found[brain.environment_id]
        assert "403" in refused.reason
        assert refused.queue is None
        assert refused.queue_error
        assert good.state == "polling"
        assert good.queue is not None
        assert good.queue.workers_polling == 1
        assert good.sessions == (session_id,)
        [lease] = good.leases
        assert (lease.session_id, lease.ttl_seconds) == (session_id, 40)
