"""Settings of the HTTP service: keys, limits and timeouts."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from valueflow.api import MAX_STREAMED, MAX_TEXTS, Limits
from valueflow.config import UNREADABLE_YAML, Config
from valueflow.errors import InputError


class KeyConfig(Config):
    """One API key with its limits; only the hash of the key is stored."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="shown in logs")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key in hex: printf %s KEY | sha256sum")
    requests_per_minute: int = Field(60, ge=1, le=1_000_000, description="also the burst size after a pause")
    concurrency: int = Field(8, ge=1, le=10_000, description="requests of this key in flight, queued ones included")


class HttpConfig(Config):
    """Keys, limits and timeouts of the HTTP service; limits apply per process (replica)."""

    keys: list[KeyConfig] = Field([], description="empty and no keys_file: no key is required")
    keys_file: str = Field("", description="JSON or YAML list of more keys, for example a mounted secret; read at start")
    metrics_open: bool = Field(False, description="serve /metrics without a key")
    docs: bool = Field(False, description="serve /docs, which loads scripts from a CDN, and /openapi.json without a key")
    hosts: list[str] = Field(
        [], description="names in Host headers beside localhost; empty: any with keys, else localhost only; '*': any"
    )
    origins: list[str] = Field([], description="web origins allowed by CORS, for example https://example.org")
    log_texts: bool = Field(False, description="log texts and messages of unexpected errors (which may contain texts)")
    max_body_bytes: int = Field(8 * 2**20, ge=1000)
    max_chars: int = Field(20_000, ge=1, description="characters per text")
    max_texts: int = Field(MAX_TEXTS, ge=1, le=MAX_TEXTS)
    max_streamed: int = Field(10_000, ge=1, le=MAX_STREAMED, description="texts per stream")
    max_units: int = Field(32_000, ge=1, description="texts times values per request, that is, scores")
    max_in_flight: int = Field(16, ge=1, description="requests processed at the same time")
    max_queued: int = Field(64, ge=0, description="requests waiting for a slot; more are refused with 429")
    body_seconds: float = Field(30, gt=0, description="time to receive a body")
    timeout_seconds: float = Field(120, gt=0, description="time in the queue and for the response (streams: in the queue)")
    stream_seconds: float = Field(3600, gt=0, description="time for a stream after the queue")
    repeat_answers: int = Field(1000, ge=0, description="responses stored for repeats of their Idempotency-Key; 0: none")
    repeat_seconds: float = Field(600, gt=0, description="how long responses are stored")
    repeat_bytes: int = Field(64 * 2**20, ge=0, description="total size of stored responses")

    @model_validator(mode="after")
    def _unique_names(self) -> "HttpConfig":
        check_names(self.keys)
        return self

    def limits(self) -> Limits:
        """Return the limits of one request."""
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
            InputError: the file is unreadable or not a list of keys, or a name occurs twice.
        """
        if not self.keys_file:
            return self.keys
        path = Path(self.keys_file)
        try:
            content: Any = OmegaConf.to_container(OmegaConf.load(path))  # refuses a key that occurs twice
            keys = self.keys + TypeAdapter(list[KeyConfig]).validate_python(content)
            check_names(keys)
        except ValidationError as error:
            # Without the input: a key written in place of its hash must not appear in a log.
            errors = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
            raise InputError(f"keys_file {path}: {'; '.join(errors)}; expected a list of name, sha256, …") from None
        except (*UNREADABLE_YAML, OSError) as error:
            # A YAML error quotes the file, so only its type is reported.
            reason = error if isinstance(error, OSError) or type(error) is ValueError else type(error).__name__
            raise InputError(f"keys_file {path}: {reason}; expected a JSON or YAML list of keys") from None
        return keys


def check_names(keys: list[KeyConfig]) -> None:
    """Refuse two keys with one name, which logs could not distinguish.

    Raises:
        ValueError: a name occurs twice.
    """
    names = [key.name for key in keys]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"keys: the name {min(repeated)!r} occurs twice; give each key its own name")
