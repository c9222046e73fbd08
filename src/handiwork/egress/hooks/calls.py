"""One call of a hook: its view made, its time bounded, what it did told in words that hold nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from handiwork.egress.hooks.loading import Hook, told
from handiwork.egress.hooks.wire import (
    MAX_REASON_CHARS,
    Answered,
    Call,
    Denied,
    Failed,
    Passed,
    RequestForm,
    ResponseForm,
    Result,
    Shown,
    checked_head,
    decode_from_hooks,
    encode,
)
from handiwork.hooks import Answer, Context, Deny, Headers, Http, Request, Response
from handiwork.model.hook import MAX_HOOK_BODY_BYTES


def context_of(call: Call, directory: Path, http: Http) -> Context:
    """Return what the hook may know and use."""
    caller = call.caller
    granted: Mapping[str, str] = dict(call.secrets)
    return Context(
        tenant=caller.tenant,
        agent_id=caller.agent_id,
        session_id=caller.session_id,
        sandbox_id=caller.sandbox_id,
        tool=caller.tool,
        tool_use_id=caller.tool_use_id,
        directory=directory,
        http=http,
        secrets=granted,
    )


async def result_of(call: Call, hook: Hook, context: Context) -> Result:
    """Run the hook; whatever it does, there is a result. MemoryError and cancelling are passed on."""
    function = hook.stages.get(call.stage)
    if function is None:
        return Failed(id=call.id, reason=f"it has no on_{call.stage}")
    request = _request(call.request)
    response = _response(call.response) if call.response is not None else None
    arguments = (request,) if response is None else (request, response)
    try:
        returned = await function(context, *arguments)
        return _checked(_made(call, request, response, returned))
    except MemoryError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return Failed(id=call.id, reason="it cancelled itself")
    except (Exception, SystemExit) as error:  # noqa: BLE001  an operator's code may raise anything
        return Failed(id=call.id, reason=told(error, f"{hook.name}.py"))


def _request(form: RequestForm) -> Request:
    return Request(
        method=form.method,
        scheme=form.scheme,
        host=form.host,
        port=form.port,
        path=form.path,
        query=form.query,
        headers=Headers(form.headers),
        body=form.body,
    )


def _response(form: ResponseForm) -> Response:
    return Response(status=form.status, headers=Headers(form.headers), body=form.body)


def _made(call: Call, request: Request, response: Response | None, returned: Any) -> Result:
    if isinstance(returned, Deny):
        return Denied(id=call.id, reason=returned.reason)
    if isinstance(returned, Answer):
        made = ResponseForm(
            status=returned.status, headers=list(returned.headers), body=returned.body
        )
        return Answered(id=call.id, response=made)
    if returned is not None:
        reason = f"it returned a {type(returned).__name__}, not None, Answer or Deny"
        return Failed(id=call.id, reason=reason)
    if response is not None:
        return Shown(id=call.id, response=_form_of_response(response))
    if request.method != call.request.method:
        return Failed(id=call.id, reason="it changed the method, which stays as it is")
    return Passed(id=call.id, request=_form_of_request(request))


def _form_of_request(request: Request) -> RequestForm:
    return RequestForm(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        port=request.port,
        path=request.path,
        query=request.query,
        headers=list(request.headers),
        body=request.body,
    )


def _form_of_response(response: Response) -> ResponseForm:
    return ResponseForm(status=response.status, headers=list(response.headers), body=response.body)


def _checked(result: Result) -> Result:
    """Return the result, or why the proxy could not take it: a hook may have set anything."""
    try:
        same = decode_from_hooks(encode(result))
    except (TypeError, msgspec.MsgspecError, OverflowError, UnicodeError) as error:
        return Failed(id=result.id, reason=f"what it made is not usable: {type(error).__name__}")
    if isinstance(same, Denied):
        return Denied(id=same.id, reason=same.reason[:MAX_REASON_CHARS])
    form = same.request if isinstance(same, Passed) else None
    form_of_answer = same.response if isinstance(same, Shown | Answered) else None
    made = form or form_of_answer
    if made is None:
        return result
    wrong = checked_head(made.headers)
    if not wrong and made.body is not None and len(made.body) > MAX_HOOK_BODY_BYTES:
        wrong = f"a body of more than {MAX_HOOK_BODY_BYTES} bytes"
    return Failed(id=result.id, reason=f"it made {wrong}") if wrong else result
