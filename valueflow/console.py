"""What the command, the jobs and their logs print: texts and names come from outside and must not steer a terminal."""

import io
import json
import logging
import re
import sys
import traceback
from types import TracebackType
from typing import TextIO

# Control characters but the line feed and the tab, marks that turn the direction of writing, and lone surrogates.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text as it may be printed: what a terminal would act on is replaced."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Return a text as it may be printed, on one line."""
    return printable(" ".join(text.split()))


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a text; `stream` is standard output by default."""
    print(printable(text), file=stream)


def json_text(value: object, indent: int | None = None) -> str:
    """Return a value as JSON that may be printed; what a terminal would act on is escaped, so nothing is lost."""
    return UNSAFE.sub(lambda char: f"\\u{ord(char[0]):04x}", json.dumps(value, ensure_ascii=False, indent=indent))


class PrintableFormatter(logging.Formatter):
    """Formats log records so that they may be printed."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, with the traceback if there is one."""
        return printable(super().format(record))


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
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
