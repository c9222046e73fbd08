"""Sockets of kinds that a guest has no use for, and the settings of its one network device."""

from attacks.table import REFUSED, Attack, call

NONE = frozenset({"EAFNOSUPPORT", "EPROTONOSUPPORT"})
KINDS = [
    call(
        name,
        f"tried(lambda: socket.socket({family}, {kind}, {protocol}).close())",
        inside=REFUSED | NONE,
    )
    for name, family, kind, protocol in (
        ("frames of every device", 17, 3, 0x300),
        ("the machine monitor's socket", 40, 1, 0),
        ("the kernel's cryptography", 38, 5, 0),
        ("raw IPv4", 2, 3, 1),
        ("raw IPv6", 10, 3, 58),
        ("IPv4 headers of one's own", 2, 3, 255),
        ("SCTP", 2, 1, 132),
        ("DCCP", 2, 6, 33),
        ("UDP-Lite", 2, 2, 136),
        ("MPTCP", 2, 1, 262),
        ("keys of IPsec", 15, 3, 2),
        ("Bluetooth", 31, 3, 1),
        ("a bus of vehicles", 29, 3, 1),
        ("express data paths", 44, 3, 0),
        ("a cluster's sockets", 30, 1, 0),
    )
]
NETLINK = [
    call(
        f"netlink: {name}",
        f"tried(lambda: socket.socket(16, 3, {protocol}).close())",
        inside=REFUSED | NONE,
    )
    for name, protocol in (
        *(("sockets of all", 4), ("IPsec", 6), ("audit", 9), ("packet filters", 12)),
        *(("device events", 15), ("the generic family", 16), ("the connector", 11)),
    )
]
DEVICE = [
    Attack(
        "loopback taken down",
        """
import fcntl, struct
with socket.socket() as one:
    print(tried(fcntl.ioctl, one, 0x8914, struct.pack("16sH14x", b"lo", 0)))
""",
    ),
    Attack(
        "an address given to loopback",
        """
import struct
body = struct.pack("BBBBI", 2, 32, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes((192, 0, 2, 9)))
with socket.socket(16, 3, 0) as one:
    one.send(struct.pack("IHHII", 16 + len(body), 20, 0x605, 1, 0) + body)
    print(word(-struct.unpack("i", one.recv(200)[16:20])[0]))
""",
    ),
    Attack(
        "all routes deleted",
        """
import struct
body = struct.pack("BBBBBBBBI", 2, 32, 0, 0, 255, 0, 253, 0, 0)
body += struct.pack("HH4s", 8, 1, bytes((127, 0, 0, 1)))
with socket.socket(16, 3, 0) as one:
    one.send(struct.pack("IHHII", 16 + len(body), 25, 5, 1, 0) + body)
    print(word(-struct.unpack("i", one.recv(200)[16:20])[0]))
""",
        outside=frozenset({"done", "ESRCH"}),
    ),
    Attack(
        "packets marked for another route",
        "with socket.socket() as one: print(tried(one.setsockopt, 1, 36, 1))",
    ),
]
ALL = KINDS + NETLINK + DEVICE
