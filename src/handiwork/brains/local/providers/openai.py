"""Chat completions of OpenAI and of whoever serves the same: vLLM, Ollama, llama.cpp, gateways."""

import json
import re

import httpx2
import msgspec
import openai
from openai import AsyncStream

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRequest,
    ModelResponse,
    Profile,
    Tell,
)
from handiwork.brains.local.providers import http
from handiwork.brains.local.providers.openai_wire import (
    Answer,
    Dialect,
    body,
    has_images,
    without_images,
)
from handiwork.brains.local.providers.pieces import ExcessiveError, MalformedError

MAX_MODELS = 10_000

_ADAPTABLE = (400, 404, 415, 422, 500, 501)

_NO_IMAGES = re.compile(
    r"image|vision|multi-?modal|content.{0,20}(string|type|part)", re.IGNORECASE
)


class OpenAIModel:
    """One model of one endpoint. `model` is its id there; `name` stands in where it is empty."""

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        name: str,
        model: str,
        profile: Profile,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.profile = profile
        self._where = f"the model {name!r}"
        self._key = key
        self._name = name
        self._model = model
        self._dialect = Dialect()
        self._has_seen_images = False
        self._http = client or http.client()
        self._sdk = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url, max_retries=0, http_client=self._http
        )

    def check(self, system: str) -> None:
        """Take every agent."""

    async def respond(self, request: ModelRequest, tell: Tell) -> ModelResponse:
        """Stream one answer; a refused option is left out from then on."""
        async with http.failures(self._where):
            while True:
                try:
                    answer = await self._answer(request, tell)
                    self._has_seen_images |= self._dialect.images and has_images(request)
                    return answer
                except openai.APIStatusError as error:
                    if self._has_seen_images and _is_about_images(error, request):
                        # It is this image that it does not take; others go on being shown.
                        request = without_images(request)
                    elif not self._adapted(error, request):
                        raise http.refused(
                            self._where,
                            error.status_code,
                            error.body,
                            error.response.headers,
                            self._key,
                        ) from None

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _answer(self, request: ModelRequest, tell: Tell) -> ModelResponse:
        answer = Answer(tell)
        try:
            model = await self._id()
            await self._stream(request, model, answer)
            return answer.done()
        except openai.APIConnectionError as error:
            raise http.unreached(self._where, error) from None
        except openai.APIStatusError:
            raise
        except openai.APIError as error:
            # An error that came as an event, after the status was told.
            raise http.refused(self._where, 500, error.body, {}, self._key) from None
        except MalformedError as error:
            raise http.broken(self._where, str(error)) from None
        except ExcessiveError as error:
            text = f"{self._where} answered with {error}"
            raise ModelFailedError(text, kind="request_failed") from None

    async def _stream(self, request: ModelRequest, model: str, answer: Answer) -> None:
        stream = await self._sdk.post(
            "/chat/completions",
            body=body(request, model, self.profile.max_output_tokens, self._dialect),
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async with stream:
            if "json" in stream.response.headers.get("content-type", ""):
                # It does not stream: the whole answer is there at once.
                answer.take(json.loads(await stream.response.aread()))
                return
            async for chunk in stream:
                answer.take(chunk)

    def _adapted(self, error: openai.APIStatusError, request: ModelRequest) -> bool:
        """Learn from a refusal; False when it says nothing that could be left out."""
        if error.status_code not in _ADAPTABLE:
            return False
        said = str(error.body)[:4000]
        before = self._dialect
        changes: dict[str, bool] = {}
        if before.usage_option and "stream_options" in said:
            changes = {"usage_option": False}
        elif not before.completion_tokens and "max_completion_tokens" in said:
            changes = {"completion_tokens": True}
        elif before.images and _is_about_images(error, request):
            changes = {"images": False}
        self._dialect = msgspec.structs.replace(before, **changes)
        return bool(changes)

    async def _id(self) -> str:
        """Return the model's id: as configured, or the name if it is served, or the one served."""
        if not self._model:
            self._model = await self._only_served() or self._name
        return self._model

    async def _only_served(self) -> str:
        try:
            listed = await self._sdk.get("/models", cast_to=object)
        except openai.APIStatusError as error:
            if error.status_code in (404, 405, 501):
                return ""
            raise
        data = listed.get("data") if isinstance(listed, dict) else None
        served = [
            each["id"]
            for each in (data if isinstance(data, list) else [])[:MAX_MODELS]
            if isinstance(each, dict) and isinstance(each.get("id"), str)
        ]
        return served[0] if len(served) == 1 and self._name not in served else ""


def _is_about_images(error: openai.APIStatusError, request: ModelRequest) -> bool:
    told = error.status_code in _ADAPTABLE and _NO_IMAGES.search(str(error.body)[:4000])
    return bool(told) and has_images(request)
