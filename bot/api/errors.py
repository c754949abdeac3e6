"""Errors as OpenAI's clients expect them: one JSON shape, whatever went wrong.

Every refusal of the services becomes a status here, so that routes only let it pass.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from core.errors import (
    AdapterRefused,
    Conflict,
    EngineBusy,
    EngineStopped,
    InvalidInput,
    ModelError,
    NotFound,
    StorageError,
    ThumbtuneError,
)

log = logging.getLogger(__name__)
INVALID = "invalid_request_error"
RETRY_AFTER_S = 1
"""A place in the queue is free again within about this long."""


class ApiError(Exception):
    """A request that is refused: what the client is told, and with which status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | int | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, dict[str, str | int | None]]:
        """Return the JSON body."""
        about = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": about}


def invalid(message: str, param: str | None = None) -> ApiError:
    """Return the refusal of a request that says something we cannot do."""
    return ApiError(400, message, param=param, code="invalid_value")


def plain(error: ThumbtuneError) -> ApiError:
    """Return what a client is told of a service's refusal."""
    text = str(error)
    match error:
        case EngineBusy():
            return ApiError(
                429,
                text,
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        case NotFound():
            return ApiError(404, text, code="not_found")
        case InvalidInput() | AdapterRefused():
            return ApiError(400, text, code="invalid_value")
        case Conflict():
            return ApiError(409, text, code="conflict")
        case EngineStopped() | ModelError() | StorageError():
            log.error("the API cannot answer: %s", text)
            return ApiError(503, "the model or its database does not answer", kind="server_error")
    return ApiError(500, text, kind="server_error")


def without_places(text: str, data_dir: Path) -> str:
    """Return a message without where on this machine the data directory lies."""
    return text.replace(f"{data_dir.resolve()}/", "").replace(f"{data_dir}/", "")


def respond(error: ApiError) -> JSONResponse:
    """Return a refusal as a response."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def handle_errors(app: FastAPI) -> None:
    """Let every error of this application, and of no other, have the one shape."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(ThumbtuneError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    return respond(cast(ApiError, error))


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    known = plain(cast(ThumbtuneError, error))
    known.args = (without_places(str(known), request.app.state.api.world.settings.data_dir),)
    return respond(known)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    known = cast(HTTPException, error)
    said = {
        404: f"Unknown request URL: {request.method} {request.url.path[:200]}",
        405: f"{request.method} is not possible on {request.url.path[:200]}",
    }
    code = "unknown_url" if known.status_code == 404 else None
    message = said.get(known.status_code, str(known.detail))
    headers = known.headers or {}
    return respond(ApiError(known.status_code, message, code=code, headers=headers))


async def _gone(_: Request, __: Exception) -> JSONResponse:
    return respond(ApiError(408, "the request did not arrive whole"))


async def _unforeseen(_: Request, __: Exception) -> JSONResponse:
    return respond(ApiError(500, "something unforeseen went wrong", kind="server_error"))
