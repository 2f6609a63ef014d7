"""Errors as problem details (RFC 9457): one exception for what is refused, one table of what other errors become."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from valueflow.api import Problem
from valueflow.errors import BudgetSpent, InputError

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 20  # of a body that does not fit; more help nobody
REASONS = {404: "not-found", 405: "method"}


class Refused(HTTPException):
    """A request that gets an error as its answer; `reason` names the kind in logs, metrics and the problem's type."""

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
        """Return the body of the answer."""
        return Problem(
            type=f"urn:valueflow:{self.reason}",
            title=HTTPStatus(self.status_code).phrase,
            status=self.status_code,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors,
        )

    def response(self, request_id: str) -> Response:
        """Return the answer."""
        return Response(self.problem(request_id).model_dump_json(), self.status_code, self.headers, MEDIA_TYPE)


def refusal(error: Exception) -> Refused:
    """Return what the caller is told about an error; nothing of one that nobody expected."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            return _misfit(error)
        case BudgetSpent():
            return Refused(503, "budget", "the judge of this server has used up its budget; its operator can raise it")
        case InputError():
            return Refused(422, "input", str(error))
        case HTTPException():
            return Refused(error.status_code, REASONS.get(error.status_code, "http"), error.detail, error.headers)
    return Refused(500, "internal", "the server failed; its operator finds the cause in the log by this request_id")


def _misfit(error: RequestValidationError) -> Refused:
    """A body or parameter that does not fit its schema; what was sent is not repeated."""
    found = error.errors()
    faults = [{"field": _field(item["loc"]), "message": item["msg"]} for item in found[:MAX_FAULTS]]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults[:3])
    return Refused(422, "schema", f"{detail}; and {len(found) - 3} more" if len(found) > 3 else detail, errors=faults)


def _field(location: Sequence[Any]) -> str:
    """`body.texts.3`, cut where the caller's own key is long."""
    return ".".join(str(part)[:100] for part in location)
