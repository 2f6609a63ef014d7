"""Callers of one worker take turns: order of the pieces, cancelled calls, and answers that do not depend on the cut."""

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fakes.judge import SlowJudge
from hypothesis import given, settings
from hypothesis import strategies as st

from valueflow.callers import CALLER, Caller, calling, new_caller, pause
from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.online import SMALL, SPECIAL_BYTES, MicroBatcher, ThreadJudge, online_judge
from valueflow.judging.turns import Piece, Turns
from valueflow.records import text_id

pytestmark = pytest.mark.component


class Letters(Turns[str, str, str]):
    """A call is a word, a piece one of its letters; `runs` has the letters of each run."""

    def __init__(self, capacity: int = 1) -> None:
        super().__init__(capacity)
        self.runs: list[str] = []
        self.let_go = threading.Event()
        self.let_go.set()

    def cut(self, work: str) -> list[Piece[str]]:
        return [Piece(letter, 1, 1) for letter in work]

    def run(self, pieces: list[str]) -> list[str]:
        self.runs.append("".join(pieces))
        assert self.let_go.wait(10)
        if "!" in pieces:
            raise RuntimeError("no letter")
        return [piece.upper() for piece in pieces]

    def join(self, pieces: list[str], results: list[str]) -> str:
        return "".join(results)


def call(turns: Turns, work: object, name: str, request: str = "") -> asyncio.Task:
    with calling(Caller(name, request or name)):
        return asyncio.create_task(turns(work))


async def first_run(turns: Letters) -> None:
    while not turns.runs:
        await asyncio.sleep(0)


@contextmanager
def first_run_lasts(turns: Letters):
    """What is called in the block arrives while the first piece is in progress."""
    turns.let_go.clear()
    try:
        yield
    finally:
        turns.let_go.set()


def test_a_light_call_whose_texts_are_known_waits_for_no_other():
    """It is answered while the worker reads; a large one takes its turns, and so does one with a new text."""
    let_go, runs, known = threading.Event(), [], {"t0", "t1"}

    def worker(windows: pa.Table) -> pa.Table:
        runs.append(windows["window_id"][0].as_py())
        assert runs[-1].startswith("known") or let_go.wait(10)
        return windows

    def knows(windows: pa.Table) -> bool:
        return set(pc.list_flatten(windows["text_ids"]).to_pylist()) <= known

    async def order() -> None:
        judge = ThreadJudge(worker, 8 * (10 + SPECIAL_BYTES), knows=knows)
        heavy = call(judge, table([[5, 5, 5]], "heavy"), "heavy")
        while not runs:
            await asyncio.sleep(0)
        light, large = table([[5, 5]] * SMALL, "known"), table([[5, 5]] * (SMALL + 1), "large")
        assert await asyncio.wait_for(judge(light), 10) == light
        waits = call(judge, large, "light")
        await asyncio.sleep(0.05)
        assert not heavy.done()
        assert not waits.done()
        let_go.set()
        assert await waits == large
        await heavy

    asyncio.run(order())
    assert runs[:3] == ["heavy0", "known0", "large0"]


def test_the_encoder_judge_knows_what_it_has_read_and_answers_in_threads_alike():
    """Answers of many threads at once are those of one, also while its memory is replaced."""
    ranker = EncoderRanker(EncoderJudge())
    texts = [f"I kept promise number {i}." for i in range(60)]
    rows = [
        {"window_id": f"{i:016x}", "theory": "svt", "value": "power", "round": 0, "text_ids": list(map(text_id, pair)),
         "texts": list(pair)} for i, pair in enumerate(itertools.pairwise(texts))
    ]  # fmt: skip
    windows = pa.Table.from_pylist(rows)
    expected = EncoderRanker(EncoderJudge())(windows)
    assert not ranker.knows(windows.slice(3, 1))
    ranker(windows.slice(3, 1))
    assert ranker.knows(windows.slice(3, 1))
    assert not ranker.knows(windows.slice(3, 2))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr("valueflow.judging.encoder.CACHE", 5)
        parts = list(pool.map(ranker, [windows.slice(i, 3) for i in range(0, 57, 3)]))
    assert pa.concat_tables(parts)["order"].to_pylist() == expected["order"].to_pylist()[:57]


def test_callers_take_turns_and_a_light_call_waits_for_one_piece_of_a_heavy_one():
    async def order() -> list[str]:
        turns = Letters()
        with first_run_lasts(turns):
            calls = [call(turns, "aaaaaa", "heavy")]
            await first_run(turns)
            calls += [call(turns, "bbb", "light"), call(turns, "c", "lighter")]
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*calls) == ["AAAAAA", "BBB", "C"]
        return turns.runs

    assert "".join(asyncio.run(order())) == "abcababaaa"


def test_a_caller_with_many_requests_has_one_turn_and_each_of_its_requests_too():
    async def order() -> str:
        turns = Letters()
        with first_run_lasts(turns):
            calls = [call(turns, "aaa", "key", "1")]
            await first_run(turns)
            calls += [call(turns, "aaa", "key", "1") for _ in range(3)]
            calls += [call(turns, "b", "key", "2"), call(turns, "xxx", "other")]
            await asyncio.sleep(0.01)
        await asyncio.gather(*calls)
        return "".join(turns.runs)

    assert asyncio.run(order()).startswith("axbxaxa")


def test_a_cancelled_call_costs_the_piece_in_progress():
    async def order() -> str:
        turns = Letters()
        with first_run_lasts(turns):
            heavy, light = call(turns, "a" * 1000, "heavy"), None
            await first_run(turns)
            light = call(turns, "bb", "light")
            heavy.cancel()
            await asyncio.sleep(0.01)
        assert await light == "BB"
        return "".join(turns.runs)

    assert asyncio.run(order()) == "abb"


def test_small_calls_share_a_run_and_a_large_one_does_not_lengthen_it():
    async def runs() -> list[str]:
        turns = Letters(capacity=3)
        turns.cut = lambda work: [Piece(work[i : i + 3], len(work[i : i + 3]), 1) for i in range(0, len(work), 3)]
        with first_run_lasts(turns):
            calls = [call(turns, "aaaaaaaaa", "heavy")]
            await first_run(turns)
            calls += [call(turns, letter, letter) for letter in "bcde"]
            await asyncio.sleep(0.01)
        await asyncio.gather(*calls)
        return turns.runs

    assert asyncio.run(runs()) == ["aaa", "bcd", "e", "aaa", "aaa"]


def test_an_error_fails_the_calls_of_its_run_and_no_other():
    async def results() -> list[object]:
        turns = Letters()
        calls = [call(turns, word, word) for word in ("a!a", "bbb")]
        return [turns.runs, *await asyncio.gather(*calls, return_exceptions=True)]

    runs, failed, answered = asyncio.run(results())
    assert isinstance(failed, RuntimeError)
    assert answered == "BBB"
    assert "".join(runs) == "ab!bb"  # the rest of the failed call is not run


def table(lengths: list[list[int]], name: str) -> pa.Table:
    """Windows of texts of the given lengths."""
    ids = [f"{name}{i}" for i in range(len(lengths))]
    return pa.table(
        {
            "window_id": ids, "theory": ["svt"] * len(ids), "value": ["power"] * len(ids),
            "text_ids": [[f"t{j}" for j in range(len(texts))] for texts in lengths],
            "round": pa.array([0] * len(ids), pa.int32()), "texts": [["é" * length for length in texts] for texts in lengths],
        }
    )  # fmt: skip


lengths = st.lists(st.lists(st.integers(0, 60), min_size=2, max_size=4), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=4), st.integers(1, 300))
def test_rows_of_a_cut_table_are_those_of_the_whole(calls, capacity):
    worker = online_judge(SimulatedJudge()).worker
    sizes = []

    def recorded(windows: pa.Table) -> pa.Table:
        sizes.append([[len(text.encode()) for text in texts] for texts in windows["texts"].to_pylist()])
        return worker(windows)

    tables = [table(call, f"c{i}-") for i, call in enumerate(calls)]
    judge = ThreadJudge(recorded, capacity)

    async def ask() -> list[pa.Table]:
        return await asyncio.gather(*(judge(one) for one in tables))

    assert asyncio.run(ask()) == [worker(one) for one in tables]
    for windows in sizes:
        lengths_of_texts = [length for window in windows for length in window]
        assert len(windows) == 1 or len(lengths_of_texts) * max(lengths_of_texts) <= capacity


def test_a_part_of_a_column_of_texts_is_cut_by_its_own_lengths():
    whole = table([[500, 500], [1, 1], [2, 2], [400, 400]], "w")
    judge = ThreadJudge(lambda windows: windows, 20 + 4 * SPECIAL_BYTES)
    for one in (whole.slice(1, 2), pa.concat_tables([whole.slice(1, 1), whole.slice(2, 1)])):
        assert [(piece.content.num_rows, piece.num, piece.longest) for piece in judge.cut(one)] == [(2, 4, 4 + SPECIAL_BYTES)]
    assert [piece.content.num_rows for piece in judge.cut(whole)] == [1, 2, 1]
    assert [piece.content.num_rows for piece in judge.cut(whole.slice(0, 0))] == [0]


def test_a_batch_of_one_caller_is_cancelled_with_it_beside_another_caller():
    judge = SlowJudge(0.2)

    async def run() -> None:
        batcher = MicroBatcher(judge)
        gone = [call(batcher, table([[1, 1]], str(i)), "gone") for i in range(3)]
        other = call(batcher, table([[1, 1]], "other"), "other")
        await asyncio.sleep(0.05)
        for one in gone:
            one.cancel()
        assert (await other).num_rows == 1

    asyncio.run(run())
    assert sorted(judge.begun) == [1, 3]
    assert judge.cancelled == [3]


def test_a_caller_is_new_unless_there_is_one():
    callers = []
    for _ in range(2):
        with calling():
            callers.append(CALLER.get())
            with calling():
                callers.append(CALLER.get())
    first, inner, second, _ = callers
    assert first == inner != second
    assert new_caller("key").name == "key"
    assert new_caller("key") != new_caller("key")


def test_pieces_are_measured_by_their_longest_text_to_which_a_model_pads_the_others():
    windows = table([[10_000, 40], *[[40, 40]] * 40], "w")
    judge = ThreadJudge(lambda windows: windows, 4_000, 1_024)
    assert [piece.content.num_rows for piece in judge.cut(windows)] == [1, 21, 19]  # 80 and 12 bytes a text
    assert judge.size([*judge.cut(windows)[:1], *judge.cut(windows)[2:]]) == 40 * (1_024 + SPECIAL_BYTES)


class LongLetters(Letters):
    """A capital letter is a long piece, whose worker pauses until nothing has run there for three pauses, then ends."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.ended = threading.Event(), []

    def cut(self, work: str) -> list[Piece[str]]:
        return [Piece(letter, 1, 100_000 if letter.isupper() else 1) for letter in work]

    def run(self, pieces: list[str]) -> list[str]:
        self.runs.append("".join(pieces))
        if not pieces[0].isupper():
            pause()  # changes nothing: what runs in a pause does not pause itself
            return pieces
        self.began.set()
        assert self.let_go.wait(10)
        for _ in range(3):
            pause()
        self.ended.append(pieces[0])
        return pieces


class TestPauses:
    def test_short_pieces_run_between_the_steps_of_a_long_one(self):
        async def run() -> LongLetters:
            turns = LongLetters()
            with first_run_lasts(turns):
                long = call(turns, "A", "heavy")
                await asyncio.to_thread(turns.began.wait)
                others = [call(turns, word, f"light {word}") for word in ("bc", "d", "E")]
                await asyncio.sleep(0)
            assert [await other for other in others] == ["bc", "d", "E"]
            assert await long == "A"
            return turns

        turns = asyncio.run(run())
        assert turns.runs[0] == "A"
        assert turns.runs[1:4] == ["b", "d", "c"]  # in turns, in the three pauses; the other long piece waits
        assert turns.ended == ["A", "E"]

    def test_one_whose_caller_has_gone_ends_at_its_next_pause(self):
        async def run() -> LongLetters:
            turns = LongLetters()
            with first_run_lasts(turns):
                gone = call(turns, "A", "gone")
                await asyncio.to_thread(turns.began.wait)
                gone.cancel()
                await asyncio.wait([gone])
            assert await call(turns, "b", "other") == "b"
            return turns

        turns = asyncio.run(run())
        assert turns.runs == ["A", "b"]
        assert turns.ended == []

    def test_an_error_in_a_pause_is_that_of_the_other_call(self):
        async def run() -> None:
            turns = LongLetters()
            with first_run_lasts(turns):
                long = call(turns, "A", "heavy")
                await asyncio.to_thread(turns.began.wait)
                turns.runs = None  # the short piece cannot be noted
                other = call(turns, "b", "light")
                await asyncio.sleep(0)
            with pytest.raises(AttributeError):
                await other
            assert await long == "A"

        asyncio.run(run())

    def test_encoders_pause_between_the_pieces_of_a_long_text(self, monkeypatch):
        pauses = []
        monkeypatch.setattr("valueflow.hives.pieces.pause", lambda: pauses.append(None))
        ranker = EncoderRanker(EncoderJudge())
        ranker.judgements(["They shared what they had, and nobody was left out. " * 100])  # 1,200 tokens: seven pieces
        before = len(pauses)
        assert before >= 1
        ranker.judgements(["short"])
        assert len(pauses) == before
