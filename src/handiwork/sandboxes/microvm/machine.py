"""The command line of QEMU for one sandbox. Pure.

Every device is named here: no network card, no display, no default of QEMU's or of a file of its.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

Acceleration = Literal["kvm", "tcg"]
MachineKind = Literal["pc", "microvm"]

CONTROL_FD, CHANNEL_FD, EXIT_FD, QMP_FD, CONSOLE_FD = 3, 4, 5, 6, 7
"""Descriptors that QEMU is started with, in this order."""

CARRIER = "virtio-serial"
"""What carries the channel, the exit and orders into a machine, everywhere; vsock is not used."""

PORTS = (("control", CONTROL_FD), ("channel", CHANNEL_FD), ("exit", EXIT_FD))
"""Ports of the one serial device; their numbers, from 1, are what `guest/init.c` opens."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_PC = "pc,usb=off,vmport=off,i8042=off,hpet=off,smbus=off"
_MICROVM = "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=on"
_WORDS = (
    "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 audit=0 random.trust_cpu=on"
    " cryptomgr.notests=1"
)
"""A kernel that tests its ciphers at each boot takes a tenth of it, where it is emulated."""
_TCG_WORDS = "tsc=unstable mitigations=off"
"""An emulated processor has no clock to trust and speculates nothing."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine is made of; every path as QEMU sees it. `waking`: its memory is read back."""

    program: str
    acceleration: Acceleration
    kind: MachineKind
    memory_mib: int
    cpus: int
    kernel: str
    initrd: str
    image: str
    disk: str
    memory: str
    waking: bool = False


def argv(machine: Machine) -> list[str]:
    """Return the command line."""
    return [machine.program, *_machine(machine), *_kernel(machine), *_devices(machine)]


def _machine(machine: Machine) -> Iterator[str]:
    memory = f"{machine.memory_mib}M"
    kind = _PC if machine.kind == "pc" else _MICROVM
    yield from ("-nodefaults", "-no-user-config", "-nographic", "-no-reboot")
    yield from ("-sandbox", SANDBOX, "-name", "handiwork")
    yield from ("-machine", f"{kind},memory-backend=memory", "-m", memory)
    yield from ("-smp", str(machine.cpus))
    if machine.acceleration == "tcg":
        yield from ("-accel", "tcg,tb-size=64", "-cpu", "Nehalem")
    else:
        yield from ("-accel", "kvm", "-cpu", "host")
    backing = f"memory-backend-file,id=memory,size={memory},mem-path={_quoted(machine.memory)}"
    yield from ("-object", f"{backing},share=on")
    if machine.waking:
        yield from ("-incoming", "defer")


def _kernel(machine: Machine) -> Iterator[str]:
    words = f"{_WORDS} {_TCG_WORDS}" if machine.acceleration == "tcg" else _WORDS
    yield from ("-kernel", machine.kernel, "-initrd", machine.initrd)
    yield from ("-append", words)


def _devices(machine: Machine) -> Iterator[str]:
    bus = "pci" if machine.kind == "pc" else "device"
    yield from ("-chardev", f"socket,id=console,fd={CONSOLE_FD}", "-serial", "chardev:console")
    yield from ("-device", f"virtio-serial-{bus},id=ports,max_ports={len(PORTS) + 1}")
    for number, (name, descriptor) in enumerate(PORTS, 1):
        yield from ("-chardev", f"socket,id={name},fd={descriptor}")
        port = f"virtserialport,bus=ports.0,nr={number},chardev={name},name={name}"
        yield from ("-device", port)
    for name, path, still in (("image", machine.image, "on"), ("disk", machine.disk, "off")):
        file = f"file.driver=file,file.filename={_quoted(path)}"
        yield from ("-blockdev", f"driver=raw,node-name={name},read-only={still},{file}")
        yield from ("-device", f"virtio-blk-{bus},drive={name}")
    yield from ("-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control")


def _quoted(path: str) -> str:
    return path.replace(",", ",,")
