"""What the HTTP service takes, from whom, and how much of it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from valueflow.api import MAX_STREAMED, MAX_TEXTS, Limits
from valueflow.config import Config
from valueflow.errors import InputError


class KeyConfig(Config):
    """Somebody who may ask, and how much; the key itself is nowhere, only its hash."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="shown in logs")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the key, in hex: printf %s KEY | sha256sum")
    requests_per_minute: int = Field(60, ge=1, le=1_000_000, description="also how many may come at once after a pause")
    concurrency: int = Field(8, ge=1, le=10_000, description="requests of this key at the same time, waiting ones included")


class HttpConfig(Config):
    """Keys, limits and habits of the HTTP service; limits hold for one process (one replica)."""

    keys: list[KeyConfig] = Field([], description="empty, and no keys_file: everybody may ask")
    keys_file: str = Field("", description="JSON or YAML list of more keys, as from a mounted secret; read at the start")
    metrics_open: bool = Field(False, description="/metrics without a key")
    docs: bool = Field(False, description="serve /docs, which loads scripts from a CDN; opens /openapi.json too")
    origins: list[str] = Field([], description="web origins whose pages may ask (CORS), as https://example.org")
    log_texts: bool = Field(
        False, description="write texts, and messages of unexpected errors (they may hold texts), to the log"
    )
    max_body_bytes: int = Field(8 * 2**20, ge=1000)
    max_chars: int = Field(20_000, ge=1, description="characters of a text")
    max_texts: int = Field(MAX_TEXTS, ge=1, le=MAX_TEXTS)
    max_streamed: int = Field(10_000, ge=1, le=MAX_STREAMED, description="texts of a stream")
    max_units: int = Field(32_000, ge=1, description="texts times values in one request")
    max_in_flight: int = Field(16, ge=1, description="requests that are worked on at the same time")
    max_queued: int = Field(64, ge=0, description="requests that wait for that; more are refused with 429")
    body_seconds: float = Field(30, gt=0, description="time for a body to come in")
    timeout_seconds: float = Field(120, gt=0, description="time for waiting and answering; of a stream, for waiting")
    stream_seconds: float = Field(3600, gt=0, description="time for a stream")
    repeat_answers: int = Field(1000, ge=0, description="answers kept to be repeated for the same Idempotency-Key; 0: none")
    repeat_seconds: float = Field(600, gt=0, description="how long they are kept")
    repeat_bytes: int = Field(64 * 2**20, ge=0, description="of all kept answers together")

    @model_validator(mode="after")
    def _named_once(self) -> "HttpConfig":
        check_names(self.keys)
        return self

    def limits(self) -> Limits:
        """Return what a client may send in one request."""
        return Limits(
            max_texts=self.max_texts,
            max_streamed=self.max_streamed,
            max_chars=self.max_chars,
            max_units=self.max_units,
            max_body_bytes=self.max_body_bytes,
        )

    def all_keys(self) -> list[KeyConfig]:
        """Return the keys of the settings and of `keys_file`.

        Raises:
            InputError: the file cannot be read, is no list of keys, or a name is there twice.
        """
        if not self.keys_file:
            return self.keys
        path = Path(self.keys_file)
        try:
            listed: Any = yaml.safe_load(path.read_text("utf-8"))
            keys = self.keys + TypeAdapter(list[KeyConfig]).validate_python(listed)
            check_names(keys)
        except ValidationError as error:
            # Without the input: who wrote the key in place of its hash shall not find it in a log.
            faults = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
            raise InputError(f"keys_file {path}: {'; '.join(faults)}; needed is a list of name, sha256, ...") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
            # A YAML error quotes the file, so only its kind is said.
            said = error if isinstance(error, OSError) or type(error) is ValueError else type(error).__name__
            raise InputError(f"keys_file {path}: {said}; needed is a JSON or YAML list of keys") from None
        return keys


def check_names(keys: list[KeyConfig]) -> None:
    """Refuse two keys of one name: logs could not tell them apart."""
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"keys: the name {min(twice)!r} is there twice; give each key a name of its own")
