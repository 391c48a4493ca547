"""The error that a caller sees, in OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is not a picture.

    `message` is a complete sentence, because many clients show nothing else. `type` and `code` are OpenAI's words
    where there are some; `param` is the name of the field that is at fault. `headers` go out with the answer,
    `metadata` beside OpenAI's four keys where there is any.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the envelope's own word
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers: Mapping[str, str] = dict(headers or {})
        self.metadata: Mapping[str, object] = {}


def envelope(error: ApiError) -> dict[str, dict[str, object]]:
    """The JSON body of the answer: the SDKs need all four keys."""
    inner: dict[str, object] = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    if error.metadata:
        inner["metadata"] = dict(error.metadata)
    return {"error": inner}


def invalid(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """A value that cannot be used (400)."""
    return ApiError(400, message, param=param, code=code)


def too_large(message: str, *, param: str | None = None, code: str = "request_too_large") -> ApiError:
    """More bytes than are taken (413)."""
    return ApiError(413, message, param=param, code=code)
