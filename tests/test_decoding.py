"""Encodings of text files: what a byte order mark names is decoded, other bytes become lone surrogates or are refused."""

import io

import pytest

from valueflow.decoding import decode, text_stream
from valueflow.errors import InputError
from valueflow.records import UNDECODABLE

TEXT = "Größe, 诚实 and 🌱\r\nsecond line\rthird line\n"
READ = TEXT.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_or_in_utf8_is_decoded(encoding):
    assert decode(TEXT.encode(encoding), "a.txt") == READ
    assert text_stream(io.BytesIO(TEXT.encode(encoding)), "a.txt").read() == TEXT


@pytest.mark.parametrize(("mark", "encoding"), [("\ufeff", "utf-16-be"), ("\ufeff", "utf-32-be"), ("\ufeff", "utf-16-le")])
def test_the_byte_order_mark_says_which_byte_comes_first(mark, encoding):
    assert decode((mark + TEXT).encode(encoding), "a.txt") == READ


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf16_without_a_byte_order_mark_is_refused_with_the_file(encoding):
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8"):
        decode("Two words, 1\n".encode(encoding), "a.txt")


@pytest.mark.parametrize(
    "content",
    [
        b"caf\xe9\nfine\n",
        "\ufeffcaf".encode("utf-16-le") + b"\x00\xd8" + "\nfine\n".encode("utf-16-le"),
        "\ufefffine\ncaf".encode("utf-16-le") + b"\xe9",
    ],
)
def test_undecodable_bytes_spoil_their_line_only(content):
    lines = decode(content, "a.txt").split("\n")
    assert sorted(bool(UNDECODABLE.search(line)) for line in lines if line) == [False, True]
    assert "fine" in lines


def test_a_zero_byte_in_a_text_is_a_matter_of_its_row():
    content = b"text\n" + b"words and words\n" * 10 + b"a\x00b\n"
    assert decode(content, "a.txt").split("\n")[11] == "a\x00b"
    assert decode(b"", "a.txt") == ""
