"""What goes wrong, as status codes and OpenAI's error objects."""

from __future__ import annotations

import traceback
from typing import Any

from ..errors import (
    CancelledError,
    ContextFullError,
    DeviceError,
    FileError,
    FormatError,
    InvalidArgumentError,
    NotEnabledError,
    OutOfMemoryError,
    PyllamacppError,
    UnsupportedError,
)
from ..log import logger


class ApiError(Exception):
    """An answer with a status of 400 or more.

    kind: OpenAI's `type`. retry_after: seconds, for a Retry-After header. closes: the connection
    takes no further request.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if closes:
            self.headers["Connection"] = "close"
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                # Half characters of a request cannot be sent back.
                "message": self.message.encode("utf-8", "replace").decode("utf-8"),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def anthropic_body(self) -> dict[str, Any]:
        """Anthropic's."""
        kinds = {401: "authentication_error", 404: "not_found_error", 413: "request_too_large"}
        kinds |= {429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error"}
        fallback = "invalid_request_error" if self.status < 500 else "api_error"
        error = self.body()["error"]
        return {
            "type": "error",
            "error": {
                "type": kinds.get(self.status, fallback),
                "message": error["message"],
            },
        }


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of an error; one that nobody expected is logged, without its text."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextFullError):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, InvalidArgumentError | UnsupportedError | FormatError):
        return ApiError(400, str(error))
    if isinstance(error, NotEnabledError):
        return ApiError(400, str(error), code="not_enabled")
    if isinstance(error, UnicodeError):
        return ApiError(400, "a text of the request has half a character in it")
    if isinstance(error, OutOfMemoryError):
        return ApiError(503, str(error), kind="server_error", code="no_memory", retry_after=5)
    if isinstance(error, CancelledError):
        return ApiError(503, "the evaluation was ended", kind="server_error", retry_after=1)
    if isinstance(error, FileError | DeviceError | PyllamacppError):
        return ApiError(500, str(error), kind="server_error")
    # Its message may hold a part of the request.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in a request\n%s", type(error).__name__, frames)
    return ApiError(500, "the server failed; its log says where", kind="server_error")
