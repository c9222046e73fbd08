"""The table of attacks: what is done inside, how it must end there, and how it ends without a wall."""

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from handiwork.model.sandbox import ExecRequest

PRELUDE = Path(__file__).with_name("inside.py").read_text()
OPEN_PLACE = (
    *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"),
    *("--mount-proc", "sh", "-c", 'mount -t tmpfs none /mnt && "$@"; exit $?', "sh"),
)
"""Root without a wall. Its namespaces only keep a control's effects from the host; it has all rights."""

REFUSED = frozenset({"EPERM", "EACCES"})
UNKNOWN = frozenset({"ENOSYS"})
ABSENT = frozenset({"ENOENT"})
READ_ONLY = frozenset({"EROFS"})
DONE = frozenset({"done"})
LACKING = frozenset(
    {
        "ENOSYS",
        "ENOENT",
        "ENODEV",
        "EAFNOSUPPORT",
        "EPROTONOSUPPORT",
        "EOPNOTSUPP",
        "ENXIO",
        "ESOCKTNOSUPPORT",
    }
)
"""What a control says on a kernel that was built without the thing."""


@dataclass(frozen=True)
class Attack:
    """One attack. Each script prints one word at its end.

    `inside` holds the words that a tier with the host's kernel must answer; a tier with a kernel of
    its own may let the guest do it to that kernel. `outside` holds those of the control, which is the
    same script run by root without a wall.
    """

    name: str
    script: str
    inside: frozenset[str] = REFUSED
    outside: frozenset[str] = DONE

    def __post_init__(self) -> None:
        """An attack that may say inside what it says outside would prove nothing."""
        assert not self.inside & (self.outside | DONE), self.name

    @property
    def program(self) -> tuple[str, ...]:
        """The command that makes it."""
        return ("python3", "-I", "-S", "-c", f"{PRELUDE}\n{self.script}")

    @property
    def request(self) -> ExecRequest:
        """The same, for a sandbox."""
        return ExecRequest(argv=self.program, cwd="/")


def call(name: str, expression: str, *, inside: frozenset[str] = REFUSED, **fields) -> Attack:
    """Return the attack that is one expression."""
    return Attack(name, f"print({expression})", inside, **fields)


@functools.cache
def control(attack: Attack) -> str:
    """Return the word of an attack where there is no wall, the same for all tiers of one host."""
    done = subprocess.run(
        [*OPEN_PLACE, *attack.program], capture_output=True, timeout=50, text=True, check=False
    )
    assert done.returncode == 0, f"{attack.name}: {done.stderr[-1000:]}"
    return done.stdout.strip()
