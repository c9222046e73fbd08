"""The Messages API of Anthropic, and whoever serves the same."""

import anthropic
import httpx2
from anthropic import AsyncStream

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRequest,
    ModelResponse,
    Profile,
    Tell,
)
from handiwork.brains.local.providers import http
from handiwork.brains.local.providers.anthropic_wire import Answer, body
from handiwork.brains.local.providers.pieces import ExcessiveError, MalformedError


class AnthropicModel:
    """One model of one provider. `model` is the provider's id."""

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        model: str,
        profile: Profile,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.profile = profile
        self._where = f"the model {model!r}"
        self._key = key
        self._model = model
        self._http = client or http.client()
        self._sdk = anthropic.AsyncAnthropic(
            api_key=key or "none", base_url=base_url, max_retries=0, http_client=self._http
        )

    def check(self, system: str) -> None:
        """Take every agent."""

    async def respond(self, request: ModelRequest, tell: Tell) -> ModelResponse:
        """Stream one answer."""
        answer = Answer(tell)
        async with http.failures(self._where):
            try:
                await self._stream(request, answer)
                return answer.done()
            except anthropic.APIStatusError as error:
                headers = error.response.headers
                raise http.refused(
                    self._where, error.status_code, error.body, headers, self._key
                ) from None
            except anthropic.APIConnectionError as error:
                raise http.unreached(self._where, error) from None
            except MalformedError as error:
                raise http.broken(self._where, str(error)) from None
            except ExcessiveError as error:
                text = f"{self._where} answered with {error}"
                raise ModelFailedError(text, kind="request_failed") from None

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _stream(self, request: ModelRequest, answer: Answer) -> None:
        # The events are read as plain JSON: the SDK's own types are lenient, and its accumulator
        # parses a growing tool input anew at every piece.
        stream = await self._sdk.post(
            "/v1/messages",
            body=body(request, self._model, self.profile.max_output_tokens),
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async with stream:
            if "json" in stream.response.headers.get("content-type", ""):
                raise MalformedError("the answer is not streamed")
            async for event in stream:
                answer.take(event)
