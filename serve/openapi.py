"""The OpenAPI document: FastAPI's, plus errors, headers, keys and the lines of a stream."""

from http import HTTPStatus
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from serve.admission import SCORING_ROUTES, STREAM, VALID_IDEMPOTENCY_KEY
from serve.problems import MEDIA_TYPE
from valueflow import __version__
from valueflow.api import Problem, StreamEnd, StreamScore, StreamStart

REF = "#/components/schemas/{model}"
NDJSON = "application/x-ndjson"
TEXT = {"schema": {"type": "string"}}
HEADERS = {
    "X-Request-Id": {"description": "request id, also in the body and in the server's log", **TEXT},
    "Retry-After": {"description": "seconds to wait before a retry", "schema": {"type": "integer"}},
}
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "request id of the caller; replaced if missing or not 1 to 64 characters of A-Za-z0-9._-",
    **TEXT,
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a request repeated under the same key within some minutes gets the first response again (with the first "
    "request_id); another request under the key gets 422",
    "schema": {"type": "string", "pattern": f"^{VALID_IDEMPOTENCY_KEY.pattern}$"},
}
LINES = {"oneOf": [{"$ref": REF.format(model=name)} for name in ("StreamStart", "StreamScore", "StreamEnd")]}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of error responses by status."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}},
            "headers": _headers("X-Request-Id", "Retry-After") if status in (429, 503) else _headers("X-Request-Id"),
        }
        for status in statuses
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def describe(routes: list[BaseRoute], open_paths: set[str], with_keys: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the routes."""
    document = get_openapi(
        title="ValueFlow",
        version=__version__,
        summary="Measures human values expressed in text: intensities from -10 to 10 with 95 % intervals",
        routes=routes,
    )
    parts = document["components"]
    parts["headers"] = HEADERS
    models: list[type[BaseModel]] = [Problem, StreamStart, StreamScore, StreamEnd]
    parts["schemas"] |= models_json_schema([(model, "serialization") for model in models], ref_template=REF)[1]["$defs"]
    if with_keys:
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            parameters = [REQUEST_ID, IDEMPOTENCY_KEY] if path in SCORING_ROUTES - {STREAM} else [REQUEST_ID]
            operation["parameters"] = operation.get("parameters", []) + parameters
            operation["responses"]["200"]["headers"] = _headers("X-Request-Id")
            operation["responses"] |= {str(status): answer for status, answer in problems(403, 414, 431).items()}
            if with_keys and path in open_paths:
                operation["security"] = []
    ok = document["paths"][STREAM]["post"]["responses"]["200"]
    ok |= {"description": "one JSON object per line: a start, a score for each text and value, an end"}
    # Set here because FastAPI declares `type: string` for responses that are not one JSON document.
    ok["content"] = {NDJSON: {"schema": LINES}}
    return document
