"""The application: errors in one shape, who may ask, and the routes that need nothing else.

Routes of a subject are a router in a module of their own; `make_application` puts them together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from relayq.errors import BadSignature, BrokerUnavailable, RelayqError
from relayq.signing import Signer, WrongScope
from relayq.version import __version__

#: What a route asks of who calls it: a dependency that refuses the others.
Guard = Callable[[Request], Awaitable[None]]


class Refused(Exception):
    """An answer that isn't what was asked for."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.said = {"code": code, "message": message, "hint": hint}
        self.headers = headers

    def answer(self) -> JSONResponse:
        """Return it in the shape of all errors."""
        return JSONResponse({"error": self.said}, self.status, self.headers)


def guard(signer: Signer, scope: str) -> Guard:
    """Return the dependency that lets in who has a token for this scope."""

    async def check(request: Request) -> None:
        sort, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if sort.lower() != "bearer":
                raise BadSignature("there is no bearer token")
            signer.check_bearer(token.strip(), scope)
        except BadSignature as error:
            status = 403 if isinstance(error, WrongScope) else 401
            word = "insufficient_scope" if status == 403 else "invalid_token"
            raise Refused(
                status,
                "forbidden" if status == 403 else "unauthorized",
                f"the token is refused: {error.message}",
                "compare fleet.key and the clocks of both machines",
                headers={
                    "WWW-Authenticate": f'Bearer error="{word}", '
                    f'error_description="{error.message}"'
                },
            ) from error

    return check


def make_application(signer: Signer, routers: list[APIRouter], scope: str) -> FastAPI:
    """Return the application with these routers."""
    # Its documentation pages load their scripts from elsewhere.
    app = FastAPI(title="relayq", version=__version__, openapi_url=None)
    app.add_api_route("/health", _health, methods=["GET"])
    app.add_api_route(
        "/api/v1/version", _version, methods=["GET"], dependencies=[Depends(guard(signer, scope))]
    )
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RelayqError, _failed)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _version() -> dict[str, str]:
    return {"relayq": __version__}


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return error.answer()


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RelayqError)
    status = 503 if isinstance(error, BrokerUnavailable) else 500
    name = type(error).__name__
    code = "".join(f"_{c}" if c.isupper() else c for c in name).lower().removeprefix("_")
    return Refused(status, code, error.message, error.hint or "").answer()


async def _plain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    code = codes.get(error.status_code, "bad_request")
    return Refused(error.status_code, code, message, headers=dict(error.headers or {})).answer()


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return Refused(422, "invalid", f"{where}: {first['msg']}").answer()
