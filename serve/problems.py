"""Errors as problem details (RFC 9457): the exception for refused requests, and the mapping of other exceptions."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from valueflow.api import Problem, message_of
from valueflow.errors import BudgetSpent, InputError, OperatorError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20  # validation errors in one response
UNAVAILABLE, INTERNAL = "unavailable", "internal"  # reasons whose cause is logged and not disclosed
REASONS = {404: "not-found", 405: "method"}


class Refused(HTTPException):
    """A refused request; `reason` names the kind of error in logs, metrics and the problem type."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.reason, self.errors = reason, list(errors)

    def problem(self, request_id: str) -> Problem:
        """Return the body of the response."""
        return Problem(
            type=f"urn:valueflow:{self.reason}",
            title=HTTPStatus(self.status_code).phrase,
            status=self.status_code,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors,
        )

    def response(self, request_id: str) -> Response:
        """Return the response."""
        return Response(self.problem(request_id).model_dump_json(), self.status_code, self.headers, MEDIA_TYPE)


def refusal(error: Exception) -> Refused:
    """Return the refusal for an exception; details of unexpected ones are not disclosed."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            return _invalid(error)
        case BudgetSpent():
            return Refused(503, "budget", "the judge of this server has spent its budget; the operator can raise it")
        case OperatorError():
            return Refused(503, UNAVAILABLE, "the server cannot reach its judge or data; its operator finds why in the log")
        case InputError():
            return Refused(422, "input", str(error))
        case HTTPException():
            return Refused(error.status_code, REASONS.get(error.status_code, "http"), error.detail, error.headers)
    return Refused(500, INTERNAL, "internal error; the operator finds the cause in the log under this request_id")


def _invalid(error: RequestValidationError) -> Refused:
    """The refusal of a body or parameter that does not match its schema; the input is not repeated."""
    items = error.errors()
    errors = [{"field": _field(item["loc"]), "message": message_of(item)} for item in items[:MAX_ERRORS]]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:3])
    return Refused(422, "schema", f"{detail}; and {len(items) - 3} more" if len(items) > 3 else detail, errors=errors)


def _field(location: Sequence[Any]) -> str:
    """Location as `body.texts.3`; long keys of the caller are truncated."""
    return ".".join(str(part)[:100] for part in location)
