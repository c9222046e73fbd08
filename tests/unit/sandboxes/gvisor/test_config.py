"""What runsc is told: only flags that it knows, no network, the sandbox's own limits."""

import json

from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.gvisor.config import AGENT, FLAGS, oci_config, runsc_flags

SPEC = SandboxSpec(id="sbx_aaaaaaaa", limits=Limits(tmp_mib=7, open_files=99, file_size_mib=5))


def document(*, ranged=True):
    return json.loads(oci_config(SPEC, ranged=ranged))


def test_flags_that_an_older_runsc_lacks_are_left_out():
    assert runsc_flags("ptrace", ["network"]) == ["--platform=ptrace", "--network=none"]


def test_no_flag_opens_a_way_to_the_host():
    told = runsc_flags("systrap", [name for name, _ in FLAGS])
    assert {"--network=none", "--host-uds=none", "--host-fifo=none", "--overlay2=none"} <= set(told)


def test_limits_reach_the_agent_and_the_mounts():
    found = document()
    assert found["process"]["args"] == [AGENT, "serve", "--nofile", "99", "--fsize-mib", "5"]
    places = {mount["destination"]: mount["options"] for mount in found["mounts"]}
    assert "size=7m" in places["/tmp"]
    assert "ro" in places["/sys"]


def test_one_that_is_made_ahead_waits():
    told = json.loads(oci_config(SPEC, ranged=True, ahead=True))
    assert told["process"]["args"][:3] == [AGENT, "serve", "--await-claim"]


def test_nothing_of_the_host_is_mounted_but_the_agent():
    bound = [m["source"] for m in document()["mounts"] if m["type"] == "bind"]
    assert bound == ["/guest"]
    assert document()["process"]["env"] == []


def test_one_id_is_mapped_to_itself_and_a_range_is_left_to_gvisor():
    assert document()["linux"].keys() == {"namespaces"}
    alone = document(ranged=False)["linux"]
    assert alone["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]
    assert {"type": "user"} in alone["namespaces"]
