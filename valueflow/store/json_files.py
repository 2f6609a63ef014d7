"""JSON files under a root: strict JSON with a digest of its content, so that a changed byte is damage and no other number."""

import hashlib
import json
import math
from collections import Counter
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from valueflow.store.files import read_parsed, write_bytes

DIGEST = "digest"
CHANGED = "its digest is that of another content, so it was changed after it was written"
RecordT = TypeVar("RecordT", bound=BaseModel)


class Sealed(NamedTuple):
    """The content of a file, and its digest; "" in files of earlier code."""

    content: Any
    digest: str


def content_digest(content: Any) -> str:
    """Return the SHA-256 of JSON content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(content: dict[str, Any]) -> bytes:
    """Return the bytes of a JSON object with its digest."""
    return json.dumps(content | {DIGEST: content_digest(content)}, indent=1).encode()


def strict_json(data: bytes) -> Any:
    """Return the content of bytes; ValueError where they are not JSON, or hold a key twice or a number that is none."""
    return json.loads(data, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)


def unsealed(data: bytes) -> Sealed:
    """Return the content of bytes without its digest.

    Raises:
        ValueError: they are not strict JSON, or their digest is that of another content.
    """
    content = strict_json(data)
    if not isinstance(content, dict) or DIGEST not in content:
        return Sealed(content, "")
    digest = content.pop(DIGEST)
    if digest != content_digest(content):
        raise ValueError(CHANGED)
    return Sealed(content, digest)


def write_record(url: str, record: BaseModel) -> None:
    """Write a record as a JSON file."""
    write_bytes(url, sealed(record.model_dump(mode="json")))


def read_record(url: str, record: type[RecordT], what: str) -> RecordT:
    """Return the record that `write_record` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        DamageError: it is not `what` it should be.
        StorageError: it cannot be read whole.
    """

    def parse(data: bytes) -> RecordT:
        try:
            return record.model_validate_json(json.dumps(unsealed(data).content), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    return read_parsed(url, parse, (ValueError,), what)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} occurs twice")
    return fields


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number")
    return number
