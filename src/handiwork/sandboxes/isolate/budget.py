"""What of its limits a run has used, as far as they are counted by what it says. Pure."""

from handiwork.model.code import CodeLimits, LimitKind


class OverLimitError(Exception):
    """A run said more than it may; its text is for the model."""

    def __init__(self, kind: LimitKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Budget:
    """Counts one run. Times are seconds on any clock that only goes forward."""

    def __init__(self, limits: CodeLimits) -> None:
        self._limits = limits
        self._calls = 0
        self._call_bytes = 0
        self._log_bytes = 0
        self._second = -1.0
        self._frames = 0

    def frame(self, now: float) -> None:
        """Count a frame; raises OverLimitError for too many in one second."""
        if now - self._second >= 1:
            self._second, self._frames = now, 0
        self._frames += 1
        most = self._limits.frames_per_second
        if self._frames > most:
            raise OverLimitError(
                LimitKind.FRAMES,
                f"more than {most} messages in a second: await what belongs together with Promise.all",
            )

    def received(self, count: int) -> None:
        """Count bytes of a run that are not its result's; raises OverLimitError."""
        self._call_bytes += count
        most = self._limits.call_mib << 20
        if self._call_bytes > most:
            raise OverLimitError(
                LimitKind.CALLS,
                f"more than {self._limits.call_mib} MiB were sent in calls: send less, or in several runs",
            )

    def call(self, under_way: int) -> None:
        """Count a call of which so many others are not answered yet; raises OverLimitError."""
        self._calls += 1
        if self._calls > self._limits.calls:
            raise OverLimitError(
                LimitKind.CALLS,
                f"more than {self._limits.calls} calls in one run: make fewer, or several runs",
            )
        if under_way >= self._limits.parallel_calls:
            raise OverLimitError(
                LimitKind.CALLS,
                f"more than {self._limits.parallel_calls} calls at once: await some before the next",
            )

    def log(self, text: str) -> bool:
        """Count a line of the log; False: there is no room for it any more."""
        self._log_bytes += len(text) + 1
        return self._log_bytes <= self._limits.log_kib << 10

    def output(self, size: int) -> None:
        """Check the size of a result; raises OverLimitError."""
        if size > self._limits.output_kib << 10:
            raise OverLimitError(
                LimitKind.OUTPUT,
                f"the result is larger than {self._limits.output_kib} KiB: return less, or write it to a file",
            )
