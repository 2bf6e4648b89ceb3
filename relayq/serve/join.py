"""Where a machine asks to join: anybody may ask, and who has no token learns nothing.

What is said here may be read by all on the way: see relayq.model.joining for why that is harmless.
"""

from __future__ import annotations

import json
import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from relayq.embedded.admission import Gate
from relayq.errors import JoinRefused, RelayqError
from relayq.model.joining import LARGEST, PATH, read_wish
from relayq.serve.application import Refused

log = logging.getLogger(__name__)

_STATUS = {
    "unknown_token": 403,
    "name_fixed": 409,
    "name_taken": 409,
    "used_token": 410,
    "expired_token": 410,
    "too_many": 429,
    "bad_request": 400,
}


def join_router(gate: Gate) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    async def join(request: Request) -> JSONResponse:
        said = await _body(request)
        address = request.client.host if request.client is not None else "?"
        try:
            wish, proof = read_wish(said)
        except ValueError as error:
            raise Refused(400, "bad_request", f"that can't be asked: {error}") from error
        try:
            answer = await run_in_threadpool(gate.admit, wish, proof, address=address)
        except JoinRefused as error:
            log.warning("%s may not join as %s: %s", address, wish.name, error.message)
            status = _STATUS.get(error.reason, 403)
            raise Refused(status, error.reason, error.message, error.hint or "") from error
        except (RelayqError, OSError) as error:
            log.error("%s can't join as %s: %s", address, wish.name, error)
            # Only who has a token comes here, and it is good still.
            hint = getattr(error, "hint", None) or "join again by the same token"
            raise Refused(503, "not_now", str(error), hint) from error
        log.info("%s joined from %s", wish.name, address)
        return JSONResponse(dict(answer), headers={"Cache-Control": "no-store"})

    router.add_api_route(PATH, join, methods=["POST"])
    return router


async def _body(request: Request) -> object:
    """Return what was sent, which is short; a web page of another origin can't send this type."""
    sort = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sort != "application/json":
        raise Refused(415, "bad_request", "expected application/json")
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > LARGEST:
            raise Refused(413, "bad_request", "too large", headers={"Connection": "close"})
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_request", "expected JSON") from error
