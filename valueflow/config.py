"""Load a job's YAML plus `key.path=value` overrides into a validated, frozen config."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError

from valueflow import __version__
from valueflow.console import say, start
from valueflow.errors import InputError, allowed, of_storage, storage_error

log = logging.getLogger(__name__)

SchemaT = TypeVar("SchemaT", bound=BaseModel)


class Config(BaseModel):
    """Base of every config: unknown keys are errors, and a loaded config does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def public(self) -> dict[str, Any]:
        """Return the settings as they are saved with results: of every `env` only the names, since values may be secrets."""
        return _without_secrets(self.model_dump())


class Resources(NamedTuple):
    """Logical CPUs and GPUs of Ray that a component reserves."""

    cpus: float
    gpus: float = 0.0


def _without_secrets(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {k: sorted(v) if k == "env" and isinstance(v, dict) else _without_secrets(v) for k, v in settings.items()}
    return [_without_secrets(item) for item in settings] if isinstance(settings, list) else settings


def load(schema: type[SchemaT], path: str, overrides: list[str]) -> SchemaT:
    """Read `path`, apply `key.path=value` overrides and `${...}` interpolation, validate as `schema`.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    if not Path(path).is_file():
        raise InputError(f"config file {path!r} does not exist; see conf/ for examples")
    for override in overrides:
        if "=" not in override:
            raise InputError(f"override {override!r} is not of the form key.path=value")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(overrides))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: {error}" + (f" (overrides: {' '.join(overrides)})" if overrides else "")) from error
    return _validated(schema, values, path)


def parse(schema: type[SchemaT], values: dict[str, Any], where: str) -> SchemaT:
    """Validate settings that are already a mapping, such as those of a Serve application; keys may be dotted (`judge.kind`).

    Raises:
        InputError: a key is unknown, or a value is out of range; the message begins with `where`.
    """
    dotted = {key: value for key, value in values.items() if "." in key}
    try:
        merged = OmegaConf.create({key: value for key, value in values.items() if key not in dotted})
        for key, value in dotted.items():
            OmegaConf.update(merged, key, value)
        return _validated(schema, OmegaConf.to_container(merged, resolve=True), where)
    except (OmegaConfBaseException, TypeError) as error:
        raise InputError(f"{where}: {error}") from error


def _validated(schema: type[SchemaT], values: Any, path: str) -> SchemaT:
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of keys to values")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, schema, path)) from error


def run_job(schema: type[SchemaT], main: Callable[[SchemaT], object]) -> None:
    """Run `main` on the config of the command line, `CONFIG.yaml [key.path=value ...]`.

    An InputError, or a disk that is full, read-only, forbidden or broken, becomes one line on standard error and exit code 2;
    any other exception is raised.
    """
    start(logging.INFO)
    for noisy in ("ray", "httpx", "sentence_transformers", "botocore", "aiobotocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if len(sys.argv) < 2:
            raise InputError(f"usage: python {sys.argv[0]} CONFIG.yaml [key.path=value ...]")
        config = load(schema, sys.argv[1], sys.argv[2:])
        log.info("%s, ValueFlow %s", " ".join(sys.argv[1:]), __version__)
        main(config)
        return
    except InputError as error:
        message = str(error)
    except OSError as error:
        if not of_storage(error):
            raise
        message = str(storage_error(error))
    say(f"error: {message}", sys.stderr)
    sys.exit(2)


def _explain(error: ValidationError, schema: type[BaseModel], path: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            fields = _fields_at(schema, item["loc"][:-1])
            lines.append(f"{key}: unknown key; {allowed(item['loc'][-1], fields)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: required, but missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            value = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
            lines.append(f"{key}: {message}{value}" if key else message)
    return f"{path}: " + "; ".join(lines) + f". Change it in {path} or with an override key.path=value"


def _fields_at(schema: Any, location: tuple[int | str, ...]) -> list[str]:
    """The field names of the model at `location`; a union is resolved by the tag, a list by its item type."""
    if not location:
        return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []
    candidates = models_of(schema.model_fields[location[0]].annotation) if location[0] in schema.model_fields else []
    rest = location[1:]
    while rest and (isinstance(rest[0], int) or any(_tag(c) == rest[0] for c in candidates)):
        candidates = [c for c in candidates if isinstance(rest[0], int) or _tag(c) == rest[0]]
        rest = rest[1:]
    return sorted({name for c in candidates for name in _fields_at(c, rest)})


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_of(part)]


def _tag(model: type[BaseModel]) -> object:
    kind = model.model_fields.get("kind")
    return kind.default if kind else None
