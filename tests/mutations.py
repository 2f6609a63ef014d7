"""Mutated files: whatever bytes a reader gets, it returns rows or refuses them in one sentence, soon and in little memory."""

import contextlib
import json
import random
import re
import signal
from collections.abc import Callable, Iterator

from hypothesis import strategies as st

from valueflow.errors import InputError

SECONDS = 30.0  # the limit of one reading, which takes less than one where nothing else runs
LONGEST = 2_000  # characters of a message
NUMBERS = (
    b"1e400",
    b"-1e400",
    b"NaN",
    b"-Infinity",
    b"9" * 30,
    b"9" * 5_000,
    b"1_0",
    b"0x1F",
    b"1e-400",
    b"-0.0",
    b"5,5",
    b"1e5",
)
WORDS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n", b'"', b'\\"', b"'", b"\t", b",", b";", b"null",
    b"true", b"[", b"]", b"{", b"}", b":", b"&a [*a]", b"*a", b"${oc.env:HOME}", b"2020-99-99", b"\\ud800", b"\xed\xa0\x80",
    b"\x1b[2J", b"\xe2\x80\xa8", b"? ", b"!!python/object:os.system ", b"<<: ", b"%YAML 9.9", b"---", b"=", b"/../", b"PAR1",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037")


def _place(rng: random.Random, content: bytes) -> int:
    return rng.randint(0, len(content))


def _span(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = _place(rng, content)
    return start, min(len(content), start + int(rng.expovariate(1 / 12)) + 1)


def _flip(rng: random.Random, content: bytes) -> bytes:
    flipped = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _cut(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] if rng.random() < 0.3 else content[:start] + content[end:]


def _insert(rng: random.Random, content: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + rng.choice(WORDS) + content[start:]


def _replace(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + rng.choice((*WORDS, *NUMBERS)) + content[end:]


def _number(rng: random.Random, content: bytes) -> bytes:
    """Another number in place of one."""
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit() and (i == 0 or not chr(content[i - 1]).isdigit())]
    if not places:
        return _insert(rng, content)
    start = end = rng.choice(places)
    while end < len(content) and chr(content[end]).isdigit():
        end += 1
    return content[:start] + rng.choice(NUMBERS) + content[end:]


def _duplicate(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.5:
        lines = content.splitlines(keepends=True) or [b""]
        line = rng.choice(lines)
        lines.insert(rng.randint(0, len(lines)), line)
        return b"".join(lines)
    start, end = _span(rng, content)
    return content[:end] + content[start:end] + content[end:]


def _swap(rng: random.Random, content: bytes) -> bytes:
    (a, b), (c, d) = sorted((_span(rng, content), _span(rng, content)))
    c, d = max(b, c), max(b, c, d)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _encode(rng: random.Random, content: bytes) -> bytes:
    return content.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")


def _nest(rng: random.Random, content: bytes) -> bytes:
    start, (opening, closing) = _place(rng, content), rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b"- ", b"")))
    depth = rng.choice((3, 100, 5_000))
    return content[:start] + opening * depth + b"1" + closing * depth + content[start:]


def _lengthen(rng: random.Random, content: bytes) -> bytes:
    start = _place(rng, content)
    run = rng.choice((b"x", b"\x00", b"1", b" ", b'"', b",", b"\n")) * rng.choice((300, 150_000))
    return content[:start] + run + content[start:]


OPERATIONS = (_flip, _cut, _insert, _replace, _number, _duplicate, _swap, _encode, _nest, _lengthen)
Mutation = tuple[Callable[[random.Random, bytes], bytes], int]
# A few operations, each with the seed of its choices: shrinking leaves operations out.
mutations = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2**32 - 1)), min_size=1, max_size=3)


def mutated(content: bytes, operations: list[Mutation]) -> bytes:
    """Return the content after the operations."""
    for operation, seed in operations:
        content = operation(random.Random(seed), content)
    return content


@contextlib.contextmanager
def within(seconds: float = SECONDS) -> Iterator[None]:
    """Fail if the block takes longer."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reading(read: Callable[[], object], refusal: type[Exception] = InputError) -> object | None:
    """Return what a reader returns, None where it refuses in one printable sentence; anything else fails."""
    with within():
        try:
            return read()
        except refusal as error:
            message = str(error)
    assert message.strip()
    assert "\n" not in message, message
    assert len(message) <= LONGEST, len(message)
    return None


def cells_at(content: bytes, sign: str, number: int) -> list[str] | None:
    """The cells of the record of CSV or TSV that begins on a line, parsed sign by sign; None where a quote is not closed."""
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", content.decode("utf-8-sig", "surrogateescape"))
    text = "".join(lines[number - 1 :])
    cells, start, i = [""], True, 0
    while i < len(text):
        if start and text[i] == '"':
            i += 1
            while i < len(text) and (text[i] != '"' or text[i + 1 : i + 2] == '"'):
                cells[-1] += text[i]
                i += 2 if text[i] == '"' else 1
            if i >= len(text):
                return None
        elif text[i] in "\r\n":
            break
        elif text[i] == sign:
            cells.append("")
        else:
            cells[-1] += text[i]
        start = text[i] == sign
        i += 1
    return cells


# Values that JSON can carry and that programs seldom expect; a text stands for JSON that `json.dumps` does not write.
ODD_JSON = (
    "null", "true", "false", "0", "-1", "1e400", "-1e400", "NaN", "1" + "0" * 400, "9" * 5_000, "0.5", '""', '"x"', '"\\ud800"',
    '"²"', '"a\\nb\\u001b[2J"', '" "', f'"{"x" * 3_000}"', "[]", "{}", "[null]", "[[]]", '[{"a": 1}]', '{"a": {"b": []}}',
    "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, "[" * 50_000 + "]" * 50_000, "[1,", '"',
)  # fmt: skip


def places(tree: object) -> Iterator[tuple[str | int, ...]]:
    """The path of every element of a JSON value, that of the value itself first."""
    yield ()
    elements = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, element in elements:
        yield from ((step, *rest) for rest in places(element))


def with_odd_values(tree: object, replacements: dict[tuple[str | int, ...], str]) -> str:
    """JSON of a value with other JSON in place of the elements at some paths."""

    def written(element: object, path: tuple[str | int, ...]) -> str:
        if path in replacements:
            return replacements[path]
        if isinstance(element, dict):
            return (
                "{" + ", ".join(f"{json.dumps(name)}: {written(value, (*path, name))}" for name, value in element.items()) + "}"
            )
        if isinstance(element, list):
            return "[" + ", ".join(written(value, (*path, i)) for i, value in enumerate(element)) + "]"
        return json.dumps(element)

    return written(tree, ())


def odd_json(tree: object) -> st.SearchStrategy[bytes]:
    """JSON of a value of which one to three elements are odd."""
    changes = st.dictionaries(st.sampled_from(list(places(tree))), st.sampled_from(ODD_JSON), min_size=1, max_size=3)
    return changes.map(lambda replacements: with_odd_values(tree, replacements).encode())
