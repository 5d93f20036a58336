# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Errors as clients of OpenAI's API know them: a status and one sentence, never where in the code it happened."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException


logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 500: "server_error", 503: "overloaded_error", 504: "timeout_error"}


class RequestError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: one sentence: what was given, what is accepted, what to do.
        param: the field of the request that is meant.
        code: a name of the error, for programs.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def response(self) -> JSONResponse:
        return JSONResponse(self.content(), status_code=self.status, headers=self.headers)

    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@contextlib.contextmanager
def client_errors(param: str | None = None) -> Iterator[None]:
    """Errors of this package about what it was given, such as `MediaError`, are those of the client.

    Raises:
        RequestError: 400, with their sentence.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise RequestError(400, " ".join(str(error).split()), param) from error


def handle_errors(app: FastAPI) -> None:
    """Has the application answer every error in the one shape."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body") or None
        if first["type"] == "json_invalid":
            return RequestError(400, "The body of the request is not valid JSON.").response()
        if field is None:
            return RequestError(400, _no_object(request)).response()
        message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        return RequestError(400, f"`{field}`: {message}.", field).response()

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        # transformers answers 422 to fields that it does not know, and OpenAI 400
        status = 400 if error.status_code == 422 else error.status_code
        message = (
            f"{request.method} {request.url.path}: {error.detail}." if status in (404, 405) else str(error.detail)
        )
        return RequestError(status, message, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return INTERNAL.response()


def _no_object(request: Request) -> str:
    """What is wrong with a body that is no object of JSON. Without the header, FastAPI does not read it as JSON."""
    kind = request.headers.get("content-type", "")
    if "json" not in kind.lower():
        given = f"has the content type {kind!r:.60}" if kind else "has no content type"
        return f"The request {given}: send JSON with the header `Content-Type: application/json`."
    return "The body of the request must be an object in JSON."


INTERNAL = RequestError(500, "The server failed to answer this request; its log says why.")
