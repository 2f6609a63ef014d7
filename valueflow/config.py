"""Load a job's YAML plus `key.path=value` overrides into a validated, frozen config."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import yaml
from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from valueflow.console import HIDDEN, is_secret, masked, secret_values
from valueflow.errors import InputError, allowed, check_no_password

# What is raised on texts that are no YAML, or whose values are none: an impossible date, 5,000 digits, deep nesting.
UNREADABLE_YAML = (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError)
SchemaT = TypeVar("SchemaT", bound=BaseModel)
# A resolver such as `${oc.env:NAME}`, which brings in what the YAML does not say; or one interpolation within another.
RESOLVER = re.compile(r"\$\{(?:[^{}]*:|[^}]*\$\{)")
MIN_SECRET = 6  # characters of a value behind a resolver that is hidden in messages


class Config(BaseModel):
    """Base of every config: unknown keys are errors, and a loaded config does not change."""

    # Inputs stay out of the messages of pydantic: they may hold secrets.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True, allow_inf_nan=False
    )

    # By field the value, and the text with resolvers that it came from.
    _written: dict[str, tuple[Any, Any]] | None = PrivateAttr(None)

    def public(self) -> dict[str, Any]:
        """Return the settings as they are saved with results, without secrets.

        A text with a resolver (`${oc.env:NAME}`) stays as it was written; values of secret names are hidden, and so are those
        of `env`.
        """
        settings: dict[str, Any] = masked(self._saved())
        return settings

    def secrets(self) -> set[str]:
        """Return the strings of these settings that are in nothing that is saved."""
        # Short values are numbers or words, and hiding them in a message would hide the message.
        resolved = {text for value, _ in (self._written or {}).values() for _, text in _texts(value) if len(text) >= MIN_SECRET}
        return secret_values(self.model_dump()) | resolved - {text for _, text in _texts(self.public())}

    def _saved(self) -> dict[str, Any]:
        saved = self.model_dump()
        for name in saved:
            value = getattr(self, name)
            resolved, text = (self._written or {}).get(name, (None, None))
            if text is not None and resolved == value:  # a copy may have another value
                saved[name] = text
            elif isinstance(value, Config):
                saved[name] = value._saved()
            elif isinstance(value, list):
                saved[name] = [
                    {n: v for n, v in i._saved().items() if n in d} if isinstance(i, Config) else d
                    for i, d in zip(value, saved[name], strict=True)
                ]
        return saved


class Resources(NamedTuple):
    """Logical CPUs and GPUs of Ray that a component reserves."""

    cpus: float
    gpus: float = 0.0


def load(schema: type[SchemaT], path: str, overrides: list[str]) -> SchemaT:
    """Read `path` ("" for none), apply `key.path=value` overrides and `${...}` interpolation, validate as `schema`.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    for override in overrides:
        if "=" not in override:
            raise InputError(f"override {override!r} is not of the form key.path=value")
    content = read_yaml(path, overrides)
    return _validated(schema, content.values, path or "the command", content.unresolved)


class Yaml(NamedTuple):
    """The content of a YAML file.

    Attributes:
        values: all interpolations resolved.
        unresolved: with resolvers as they were written; None where there is no resolver.
    """

    values: Any
    unresolved: Any


def read_yaml(path: str, overrides: Sequence[str] = ()) -> Yaml:
    """Return the content of a YAML file with overrides.

    Raises:
        InputError: the file is missing or not YAML, or a key occurs twice.
    """
    if path and not Path(path).is_file():
        raise InputError(f"config file {path!r} does not exist; see conf/ for examples")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path) if path else {}, OmegaConf.from_dotlist(list(overrides)))
        return Yaml(OmegaConf.to_container(merged, resolve=True), unresolved(merged))
    except (*UNREADABLE_YAML, OSError) as error:
        given = f" (overrides: {shown(overrides)})" if overrides else ""
        raise InputError(f"{path or 'the command'}: {_reason(error)}{given}") from error


def _reason(error: Exception) -> str:
    """The message of an error; of YAML's without the line itself, which may hold a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.context or ''} {error.problem}"
    return str(error)


def shown(overrides: Sequence[str]) -> str:
    """Return overrides as they may be logged: one that holds a secret without its value."""
    texts = []
    for override in overrides:
        key, _, text = override.partition("=")
        try:
            setting = yaml.safe_load(text)
        except yaml.YAMLError:  # what it holds is unknown
            setting = {HIDDEN: {"secret": text}}
        for part in reversed(key.split(".")):
            setting = {part: setting}
        texts.append(override if masked(setting) == setting else f"{key}={HIDDEN}")
    return " ".join(texts)


def unresolved(settings: Container) -> Any:
    """The settings with references resolved and resolvers as they were written; None where there is no resolver."""
    texts: list[str] = []

    def cut(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: cut(value) for key, value in node.items()}
        if isinstance(node, list):
            return [cut(value) for value in node]
        if isinstance(node, str) and RESOLVER.search(node):
            texts.append(node)
            return f"\x00{len(texts) - 1}\x00"
        return node

    def paste(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: paste(value) for key, value in node.items()}
        if isinstance(node, list):
            return [paste(value) for value in node]
        return re.sub("\x00([0-9]+)\x00", lambda m: texts[int(m[1])], node) if isinstance(node, str) else node

    raw = OmegaConf.to_container(settings, resolve=False)
    without = cut(raw)
    if not texts:
        return None
    try:
        return paste(OmegaConf.to_container(OmegaConf.create(without), resolve=True))
    except OmegaConfBaseException:  # a reference into what a resolver makes
        return raw


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
        return _validated(schema, OmegaConf.to_container(merged, resolve=True), where, unresolved(merged))
    except (OmegaConfBaseException, TypeError) as error:
        raise InputError(f"{where}: {error}") from error


def _validated(schema: type[SchemaT], values: Any, path: str, written: Any) -> SchemaT:
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of keys to values")
    for key, text in _texts(values):
        check_no_password(text, f"{path}: {key}")
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, schema, path)) from error
    if written is not None and isinstance(config, Config):
        remember(config, written)
    return config


def _texts(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(settings, str):
        yield key, settings
    elif isinstance(settings, (dict, list)):
        items = settings.items() if isinstance(settings, dict) else enumerate(settings)
        for name, value in items:
            yield from _texts(value, f"{key}.{name}".lstrip("."))


def remember(config: Config, written: Any) -> None:
    """Keep the texts with resolvers in a config; `written` is a text where a resolver made all of it."""
    texts = {}
    for name in config.model_fields_set:
        value, text = getattr(config, name), written[name] if isinstance(written, dict) else written
        if isinstance(value, Config):
            remember(value, text)
        elif isinstance(value, list) and value and isinstance(value[0], Config):
            for n, item in enumerate(value):
                remember(item, text[n] if isinstance(text, list) else text)
        elif _is_open(type(config).model_fields[name].annotation) and any(RESOLVER.search(t) for _, t in _texts(text)):
            texts[name] = (value, text)
    config._written = texts or None


def _is_open(annotation: Any) -> bool:
    """Whether a field may hold any text; numbers and choices hold no secrets, and are read back from manifests."""
    return annotation in (str, dict, Any) or get_origin(annotation) is dict or any(map(_is_open, get_args(annotation)))


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
            value = "" if isinstance(item["input"], dict) else f" (got {_given(item['loc'], item['input'])!r})"
            lines.append(f"{key}: {message}{value}" if key else message)
    return f"{path}: " + "; ".join(lines) + f". Change it in {path} or with an override key.path=value"


def _given(location: tuple[int | str, ...], value: Any) -> Any:
    return HIDDEN if any(part == "env" or is_secret(part) for part in location) else masked(value)


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
