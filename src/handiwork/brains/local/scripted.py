"""The `scripted` model: an agent's system prompt is the script it plays."""

from functools import lru_cache

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRefusedError,
    ModelRequest,
    ModelResponse,
    Profile,
    Tell,
)
from handiwork.brains.local.script import Program, Run, ScriptError, ScriptFailedError, parse

_program = lru_cache(maxsize=256)(parse)


class ScriptedModel:
    """Plays the script that stands in the agent's `system`; reads the real results of its calls."""

    profile = Profile()

    def check(self, system: str) -> None:
        """Refuse an agent whose script is malformed, with the step named."""
        self._program(system, ModelRefusedError)

    async def respond(self, request: ModelRequest, tell: Tell) -> ModelResponse:
        """Play on until the script calls tools or the turn ends."""
        run = Run(self._program(request.system, ModelFailedError), request.scratch)
        if request.message is not None:
            run.begin(request.message)
        else:
            run.take(request.results)
        try:
            run.go_on()
        except ScriptFailedError as error:
            raise ModelFailedError(str(error)) from None
        return ModelResponse(blocks=tuple(run.blocks), scratch=run.scratch())

    async def close(self) -> None:
        """Do nothing: it has no connection."""

    def _program(self, system: str, refusal: type[Exception]) -> Program:
        try:
            return _program(system)
        except ScriptError as error:
            raise refusal(f"system: {error}") from None
