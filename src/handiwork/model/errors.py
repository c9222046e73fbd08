"""One tree of errors; a class stands here only because some caller acts differently on it.

Every message says what failed, where, and what to do. A command that exits non-zero, times out or
overflows is a result (`ExecResult`), never an error.
"""


class HandiworkError(Exception):
    """Root of the tree."""


class ConfigError(HandiworkError):
    """The operator's settings or input are wrong; the CLI prints one line and exits 2."""


class NotFoundError(HandiworkError):
    """The named thing does not exist for this tenant."""


class ConflictError(HandiworkError):
    """The thing is in a state that forbids the request."""


class UnauthorizedError(HandiworkError):
    """The caller did not prove who it is, or may not do this."""


class ForbiddenError(UnauthorizedError):
    """The caller is known and may not do this, whatever else it shows: another key is not tried."""


class BadSignatureError(HandiworkError):
    """A webhook's signature does not verify."""


class LeaseLostError(HandiworkError):
    """Somebody else owns the work item: stop at once, post nothing."""


class BrainUnavailableError(HandiworkError):
    """The brain cannot be reached or answered with a transient error: retry.

    `retry_seconds` is how long the brain asked to be left alone, 0 where it did not.
    """

    def __init__(self, message: str, *, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class BrainRefusedError(HandiworkError):
    """The brain refused a request for good (a permanent 4xx): settle, do not repeat."""


class SandboxUnavailableError(HandiworkError):
    """Our side of a sandbox failed: never to be shown as a command's output."""


class UnsupportedError(HandiworkError):
    """The tier, image or host lacks what was asked for; the message names it."""


class PolicyDeniedError(HandiworkError):
    """A policy refused; `rule_id` is the rule, or `default` where none permitted."""

    def __init__(self, message: str, *, rule_id: str = "default") -> None:
        super().__init__(message)
        self.rule_id = rule_id


class SecretMissingError(HandiworkError):
    """A rule names a secret that is not there, or not for this host."""


class ToolFailedError(HandiworkError):
    """The tool could not do what the model asked; the text is for the model to act on."""


class GuestError(HandiworkError):
    """A file operation inside the sandbox failed; `errno` is Linux's number."""

    def __init__(self, message: str, *, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


def sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that a task group raised, or the group itself when there are several."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner
