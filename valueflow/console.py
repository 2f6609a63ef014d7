"""What is printed, logged and saved for people: nothing from outside steers a terminal, and no secret is among it."""

import io
import itertools
import json
import logging
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# Control characters but the line feed and the tab, marks that turn the direction of writing, and lone surrogates.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

HIDDEN = "***"
# Words of a key whose value is a secret, and pairs of them; not where the key ends with a word of NO_SECRET (`password_file`).
SECRET = {
    "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "passphrase", "passwd", "password",
    "pwd", "secret", "secrets", "sig", "signature", "token",
}  # fmt: skip
SECRET_KEYS = {"access", "account", "api", "auth", "functions", "private", "secret", "subscription"}
NO_SECRET = {"env", "field", "file", "id", "ids", "mode", "name", "path", "type", "types", "url"}
WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
# User and password of a URL. Other schemes than http may have a user alone: abfss://container@account.
USERINFO = re.compile(
    r"""(?i)(?<=://)(?:(?<=https://)[^\s/?\#"'<>]*@|(?<=http://)[^\s/?\#"'<>]*@"""
    r"""|[^\s/?\#@:"'<>\[]*:(?!\d*(?:[\s/?\#"'<>,]|$))[^\s"'<>]*@)"""
)
ASSIGNED = re.compile(r"""(?<![\w.-])([\w.-]+)=([^\s&;,"'(){}\[\]]+)""")
QUOTED = re.compile(r"""(["'])([\w.-]+)\1(\s*:\s*)(["'])((?:(?!\4).)+)\4""")
AUTHORIZATION = re.compile(r"""(?i)\b(authorization\s*[:=]\s*)(?:(?:bearer|basic|token)\s+)?[^\s"',}]+""")
UNRESOLVED = re.compile(r"\$\{.*\}", re.DOTALL)


def is_secret(key: object) -> bool:
    """Return whether a setting, header or parameter of this name holds a secret."""
    if not isinstance(key, str) or not re.fullmatch(r"[\w.-]+", key):
        return False
    words = [word.lower() for word in WORD.findall(key)]
    secret = any(word in SECRET for word in words) or any(b == "key" and a in SECRET_KEYS for a, b in itertools.pairwise(words))
    return secret and words[-1] not in NO_SECRET


def without_secrets(text: str) -> str:
    """Return a text as it may be shown: users and passwords of URLs, and the values of secret names, are hidden."""
    text = USERINFO.sub(f"{HIDDEN}@", text)
    text = AUTHORIZATION.sub(rf"\g<1>{HIDDEN}", text)
    text = ASSIGNED.sub(lambda m: f"{m[1]}={HIDDEN}" if is_secret(m[1]) and not m[2].startswith("$") else m[0], text)
    return QUOTED.sub(lambda m: f"{m[1]}{m[2]}{m[1]}{m[3]}{m[4]}{HIDDEN}{m[4]}" if is_secret(m[2]) else m[0], text)


def masked(settings: Any, by_name: bool = True) -> Any:
    """Return settings as they may be saved or shown: of `env` and headers only the names, no value of a secret name.

    Args:
        settings: any nesting of dicts and lists.
        by_name: False where the keys are data; then only what the strings themselves tell is hidden.
    """
    if isinstance(settings, str):
        return without_secrets(settings)
    if isinstance(settings, (list, tuple)):
        return [masked(item, by_name) for item in settings]
    if not isinstance(settings, dict):
        return settings
    return {key: _masked_value(key, value) if by_name else masked(value, False) for key, value in settings.items()}


def _masked_value(key: object, value: Any) -> Any:
    if _is_private(key, value):
        return sorted(map(str, value))
    shown = value is None or isinstance(value, bool) or value == "" or (isinstance(value, str) and UNRESOLVED.fullmatch(value))
    return masked(value) if shown or not is_secret(key) else HIDDEN


def _is_private(key: object, value: Any) -> bool:
    """Whether all values of a mapping may be secrets."""
    return isinstance(value, dict) and str(key).lower().endswith(("env", "headers"))


def secret_values(settings: Any) -> set[str]:
    """Return the strings that `masked` hides because of their names."""
    if isinstance(settings, dict):
        settings = {
            k: {f"secret.{n}": v for n, v in value.items()} if _is_private(k, value) else value for k, value in settings.items()
        }
        hidden = {str(value) for key, value in settings.items() if value not in (None, True, False, "") and is_secret(key)}
        return hidden.union(*map(secret_values, settings.values()))
    if isinstance(settings, (list, tuple)):
        return set[str]().union(*map(secret_values, settings))
    return {m[2] for m in ASSIGNED.finditer(settings) if is_secret(m[1])} if isinstance(settings, str) else set()


def printable(text: str) -> str:
    """Return a text as it may be printed: what a terminal would act on is replaced."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Return a text as it may be printed, on one line."""
    return printable(" ".join(text.split()))


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print a text; `stream` is standard output by default."""
    print(printable(text), file=stream, end=end, flush=not end)


def unwritten() -> OSError | None:
    """Flush standard output; return why that fails, and drop what is left there: the flush at exit must not fail again."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def json_text(value: object, indent: int | None = None) -> str:
    """Return a value as JSON that may be printed; what a terminal would act on is escaped, so nothing is lost."""
    return UNSAFE.sub(lambda char: f"\\u{ord(char[0]):04x}", json.dumps(value, ensure_ascii=False, indent=indent))


class PrintableFormatter(logging.Formatter):
    """Formats log records so that they may be printed."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, with the traceback if there is one."""
        return printable(without_secrets(super().format(record)))


def log_handler(stream: TextIO) -> logging.Handler:
    """Return a handler that writes printable log lines, each the message alone, to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    return handler


def start(level: int) -> None:
    """Log to standard error from `level`, print tracebacks like logs, and print any character in any encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=level, handlers=[log_handler(sys.stderr)])
    sys.excepthook = _print_traceback


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable(without_secrets("".join(traceback.format_exception(kind, error, trace)))))
