"""The monitor against a QEMU that is none: right answers, wrong ones, and none."""

import asyncio
import json
import os
import socket

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import qmp

GREETING = b'{"QMP": {}}\r\n'


class Qemu:
    """Answers each command with the next lines."""

    def __init__(self, *answers):
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.answers = [b'{"return": {}}\n', *answers]
        self.asked = []
        self.descriptors = []

    async def serve(self):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.theirs, GREETING)
        unread = b""
        while self.answers:
            await asyncio.sleep(0.001)
            try:
                data, descriptors, _, _ = socket.recv_fds(self.theirs, 65536, 4)
            except BlockingIOError:
                continue
            self.descriptors += descriptors
            unread += data
            while b"\n" in unread:
                line, _, unread = unread.partition(b"\n")
                self.asked.append(json.loads(line))
                await loop.sock_sendall(self.theirs, self.answers.pop(0))
        await asyncio.sleep(0.05)
        self.theirs.close()


async def asked(qemu, *calls):
    monitor = qmp.Monitor(qemu.ours)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(qemu.serve())
        try:
            return [await monitor.run(name, **more) for name, more in calls]
        finally:
            serving.cancel()
            monitor.close()
            qemu.theirs.close()


async def test_answers_come_in_order_and_events_are_passed_over():
    qemu = Qemu(b'{"event": "STOP"}\n{"return": {"a": 1}}\n', b'{"return": 2}\n')
    found = await asked(qemu, ("one", {"x": 1}), ("two", {}))
    assert found == [{"a": 1}, 2]
    assert [line["execute"] for line in qemu.asked] == ["qmp_capabilities", "one", "two"]
    assert qemu.asked[1]["arguments"] == {"x": 1}


async def test_a_descriptor_goes_along(tmp_path):
    path = tmp_path / "file"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    qemu = Qemu(b'{"return": {}}\n')
    await asked(qemu, ("getfd", {"descriptor": file, "fdname": "x"}))
    os.close(file)
    os.write(qemu.descriptors[0], b"through")
    os.close(qemu.descriptors[0])
    assert path.read_bytes() == b"through"
    assert qemu.asked[1] == {"execute": "getfd", "arguments": {"fdname": "x"}}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b'{"error": {"desc": "no such thing"}}\n', "no such thing"),
        (b"not json\n", "did not do one"),
        (b"[]\n", "answered []"),
        (b"x" * 300_000, "without an end"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer, told):
    with pytest.raises(ExceptionGroup) as failed:
        await asked(Qemu(answer, b""), ("one", {}))
    assert isinstance(failed.value.exceptions[0], SandboxUnavailableError)
    assert told in str(failed.value.exceptions[0])


async def test_silence_ends_by_itself(monkeypatch):
    monkeypatch.setattr(qmp, "ANSWER_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    monitor = qmp.Monitor(ours)
    with pytest.raises(SandboxUnavailableError, match="TimeoutError"):
        await monitor.run("one")
    monitor.close()
    theirs.close()
