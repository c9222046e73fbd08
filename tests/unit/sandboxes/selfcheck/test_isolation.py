"""A tier without walls is found out: answers as a host would give them fail every check."""

from handiwork.model.sandbox import ExecResult
from handiwork.sandboxes.selfcheck import names, selfcheck
from handiwork.testing.sandbox import FakeDriver

ANSWERS = {
    "/proc/net/dev": b"lo\neth0\n",
    "getent": b"1\n93.184.216.34 example.com\n0\n",
    "/etc/shadow": b".ssh\n/etc/shadow\n/etc/passwd\n",
    "cd /proc": b"312\n",
    "/proc/1/environ": b"40\n0\n",
    "/proc/self/status": b"NoNewPrivs:\t0\nSeccomp:\t0\nCapBnd:\t000001ffffffffff\n",
    "mount -t tmpfs": b"mount -t tmpfs none /mnt\n",
    "core_pattern": b"/proc/sys/kernel/core_pattern\n",
}


def shell(request):
    script = request.argv[-1]
    found = next((text for part, text in ANSWERS.items() if part in script), b"")
    return ExecResult(exit_code=0, stdout=found, stderr=b"")


def python(request):
    opened = b"b'hi'\nsent\nclosed\nclosed\n" if "create_server" in request.argv[-1] else b"sent\n"
    return ExecResult(exit_code=0, stdout=opened, stderr=b"")


def descriptors(request):
    return ExecResult(exit_code=0, stdout=b"0\n1\n2\n3\n4\n", stderr=b"")


async def test_found_out():
    driver = FakeDriver({"sh": shell, "python3": python, "ls": descriptors})
    found = [made async for made in selfcheck(driver, areas=["isolation"])]
    assert [made.name for made in found] == names(["isolation"])
    assert [made.name for made in found if made.ok] == []
