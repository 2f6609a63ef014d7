"""Bytes of users' files as text: UTF-8, or UTF-16 and UTF-32 that begin with a byte order mark.

Bytes that are not valid in the encoding become lone surrogates, so that a reader can refuse one row instead of the whole file
(`records.flaw`).
"""

import codecs
import io
from typing import BinaryIO

from valueflow.errors import InputError

# UTF-32 first: its mark for little-endian bytes begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEAD = 1024  # bytes in which an encoding is looked for
UNDECODABLE_BYTES = "valueflow-surrogates"


def _surrogates(error: UnicodeError) -> tuple[str, int]:
    """The error handler of UTF-16 and UTF-32, whose undecodable units `surrogateescape` refuses."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(UNDECODABLE_BYTES, _surrogates)


def text_stream(file: BinaryIO, name: str, newline: str | None = "") -> io.TextIOWrapper:
    """Return a stream of the text in a binary file, which is read from its start; a byte order mark is skipped.

    Args:
        file: a seekable file.
        name: the file in messages.
        newline: as in `open`.

    Raises:
        InputError: the file has the zero bytes of UTF-16 or UTF-32 but no byte order mark.
    """
    head = file.read(HEAD)
    file.seek(0)
    encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8-sig")
    if encoding != "utf-8-sig":
        return io.TextIOWrapper(file, encoding, UNDECODABLE_BYTES, newline)
    if head.count(0) * 16 >= max(len(head), 16):  # in UTF-16 every second byte of Latin letters and signs is zero
        raise InputError(f"{name} is not UTF-8: many of its bytes are zero, as in UTF-16 or binary data; save it as UTF-8")
    return io.TextIOWrapper(file, encoding, "surrogateescape", newline)


def decode(content: bytes, name: str) -> str:
    """Return the text of a file's content, with every end of line as a line feed; see `text_stream`."""
    return text_stream(io.BytesIO(content), name, None).read()
