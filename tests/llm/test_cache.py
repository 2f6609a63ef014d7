"""The call cache alone: keys, stored replies, concurrent threads and processes. See test_endpoint for its use."""

import itertools
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from valueflow.llm.cache import CallCache, Reply, call_key

MESSAGES = [{"role": "system", "content": "You judge."}, {"role": "user", "content": "A or B?"}]
SAMPLING = {"temperature": 0.0, "max_tokens": 8, "structured_outputs": {"choice": ["A", "B"]}}
KEY = call_key("m", "r", MESSAGES, SAMPLING, 0)
SHARED = [call_key("m", "", [], {}, i) for i in range(5)]


@pytest.mark.parametrize(
    "reply",
    [
        Reply("A", "", 120, 1, 0.1 + 0.2),
        Reply("B > A", "", 0, 0, None),
        Reply("", "", 3, 0),  # the model said nothing
        Reply('"A"\n\x00 Größe 🙂 \ud800', "", 1, 2),
        Reply("A", "", 1, 1, 0.0),
    ],
)
def test_a_reply_comes_back_as_it_was(tmp_path, reply):
    cache = CallCache(f"{tmp_path}/cache/")
    assert cache.get(KEY) is None
    cache.put(KEY, reply)
    assert cache.get(KEY) == CallCache(f"{tmp_path}/cache").get(KEY) == reply
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == [f"cache/{KEY[:2]}/{KEY}.json"]


def test_an_error_is_not_cached_and_does_not_replace_an_answer(tmp_path):
    cache = CallCache(str(tmp_path))
    cache.put(KEY, Reply("half an ans", "cut at max_tokens", 1, 1))
    assert not list(tmp_path.iterdir())
    cache.put(KEY, Reply("A", "", 1, 1))
    cache.put(KEY, Reply("", "HTTP 500", 0, 0))
    assert cache.get(KEY) == Reply("A", "", 1, 1)


def test_every_ingredient_is_in_the_key():
    others = [
        call_key("n", "r", MESSAGES, SAMPLING, 0),
        call_key("m", "s", MESSAGES, SAMPLING, 0),
        call_key("mr", "", MESSAGES, SAMPLING, 0),
        call_key("", "mr", MESSAGES, SAMPLING, 0),
        call_key("m", "r", MESSAGES[::-1], SAMPLING, 0),
        call_key("m", "r", MESSAGES[1:], SAMPLING, 0),
        call_key("m", "r", [MESSAGES[0], MESSAGES[1] | {"role": "assistant"}], SAMPLING, 0),
        call_key("m", "r", [MESSAGES[0], MESSAGES[1] | {"content": "A or B? "}], SAMPLING, 0),
        call_key("m", "r", MESSAGES, SAMPLING | {"temperature": 0.1}, 0),
        call_key("m", "r", MESSAGES, SAMPLING | {"structured_outputs": {"choice": ["B", "A"]}}, 0),
        call_key("m", "r", MESSAGES, SAMPLING | {"seed": None}, 0),
        call_key("m", "r", MESSAGES, SAMPLING, 1),
    ]
    assert len({KEY, *others}) == 1 + len(others)
    turned = [dict(reversed(message.items())) for message in MESSAGES]
    assert call_key("m", "r", turned, dict(reversed(SAMPLING.items())), 0) == KEY  # the order of fields does not matter
    assert len(call_key("m", "", [{"role": "user", "content": "\ud800"}], {}, 0)) == 64


def test_a_file_torn_anywhere_is_a_miss_until_it_is_written_again(tmp_path):
    cache, reply = CallCache(str(tmp_path)), Reply("A > B", "", 120, 12, 0.25)
    cache.put(KEY, reply)
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert cache.get(KEY) is None
    for corrupt in (b"[1, 2, 3, 4, 5]", b"17", b"\x00" * len(whole), whole + b"]"):
        file.write_bytes(corrupt)
        assert cache.get(KEY) is None
    cache.put(KEY, reply)
    assert cache.get(KEY) == reply


def reply_of(writer: int, key: str) -> Reply:
    """Replies of very different lengths, so that a mixture of two is detected."""
    return Reply(f"{writer} {key} " * (1 + 200 * writer), "", writer, len(key), writer / 16)


def work(url: str, writer: int, writers: int, times: int) -> list[str]:
    """Write shared and unshared keys repeatedly, and return the replies read that no process wrote."""
    cache = CallCache(url)
    wrong = []
    for number, key in itertools.product(range(times), SHARED):
        cache.put(key, reply_of(writer, key))
        unshared = call_key("own", str(writer), [], {}, number)
        cache.put(unshared, reply_of(writer, unshared))
        if cache.get(key) not in [reply_of(other, key) for other in range(writers)] or cache.get(unshared) != reply_of(
            writer, unshared
        ):
            wrong.append(key)
    return wrong


def check(folder, writers: int, times: int) -> None:
    cache = CallCache(str(folder))
    assert all(cache.get(key) in [reply_of(writer, key) for writer in range(writers)] for key in SHARED)
    unshared = [(writer, call_key("own", str(writer), [], {}, number)) for writer in range(writers) for number in range(times)]
    assert all(cache.get(key) == reply_of(writer, key) for writer, key in unshared)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == len(SHARED) + len(unshared)  # no partial files


def test_many_threads_at_once(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(work, [str(tmp_path)] * 16, range(16), [16] * 16, [4] * 16))
    check(tmp_path, 16, 4)


@pytest.mark.component
def test_several_processes_at_once(tmp_path):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        assert not any(pool.map(work, [str(tmp_path)] * 3, range(3), [3] * 3, [20] * 3, timeout=120))
    check(tmp_path, 3, 20)
