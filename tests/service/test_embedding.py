"""An encoder that several callers share gives each the vectors of `Encoder.embed`, to the last digit."""

import asyncio

import numpy as np
import pytest

from valueflow.callers import Caller, calling
from valueflow.hives import encoder as encoders
from valueflow.hives.encoder import Encoder, Part
from valueflow.models import MINILM
from valueflow.service.embedding import ThreadEncoder

pytestmark = pytest.mark.component

LONG = [f"Number {i}: " + "I lent my neighbour a ladder and never saw it again. " * (3 + i % 20) for i in range(40)]
SHORT = [f"I kept promise {i}." for i in range(9)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINILM)


class Recorder(ThreadEncoder):
    """Records the rows of every run."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.runs: list[list[int]] = []

    def run(self, pieces: list[Part]) -> list[np.ndarray]:
        self.runs.append([len(part.rows) for part in pieces])
        return super().run(pieces)


def call(encode: ThreadEncoder, texts: list[str], name: str) -> asyncio.Task:
    with calling(Caller(name, name)):
        return asyncio.create_task(encode(texts))


def test_vectors_are_those_of_the_encoder_alone_whoever_else_calls(encoder):
    async def shared() -> list[np.ndarray]:
        encode = Recorder(encoder)
        vectors = await asyncio.gather(*(call(encode, texts, str(i)) for i, texts in enumerate((LONG, SHORT, LONG[:7]))))
        assert len(encode.runs) > 5
        return vectors

    for z_TD, texts in zip(asyncio.run(shared()), (LONG, SHORT, LONG[:7]), strict=True):
        np.testing.assert_array_equal(z_TD, encoder.embed(texts))


def test_parts_of_a_batch_are_the_whole_batch(encoder, monkeypatch):
    in_parts = encoder.embed(LONG)
    monkeypatch.setattr(encoders, "PART_CHARACTERS", 10**9)
    assert len(encoder.parts(LONG)) == 1
    np.testing.assert_allclose(encoder.embed(LONG), in_parts, atol=1e-6)


def test_the_run_of_a_small_call_has_nothing_of_a_large_one(encoder):
    async def runs() -> list[list[int]]:
        encode = Recorder(encoder)
        calls = [call(encode, ["short"] * 400, "heavy"), call(encode, SHORT[:1], "light")]
        await asyncio.gather(*calls)
        return encode.runs

    assert [1] in asyncio.run(runs())


def test_a_caller_that_left_costs_one_part(encoder):
    async def rows_after_leaving() -> int:
        encode = Recorder(encoder)
        heavy = call(encode, LONG * 10, "heavy")
        while not encode.runs:
            await asyncio.sleep(0.001)
        before = len(encode.runs)
        heavy.cancel()
        await call(encode, SHORT[:1], "light")
        return len(encode.runs) - before

    assert asyncio.run(rows_after_leaving()) == 1


def test_long_texts_are_tokenized_few_at_a_time_and_padded_as_in_a_full_batch(encoder):
    texts = [f"Number {i}: " + "I lent my neighbour a ladder and never saw it again. " * 190 for i in range(70)]
    assert min(map(len, texts)) > 10_000
    most = 64 * encoder.max_length * encoders.CHARACTERS_PER_TOKEN
    batches = {id(part.batch): part.batch for part in encoder.parts(texts)}
    assert sum(len(batch.texts) for batch in batches.values()) == len(texts)
    assert all(sum(map(len, batch.texts)) <= most for batch in batches.values())
    assert {batch.inputs["input_ids"].shape[1] for batch in batches.values()} == {encoder.max_length}
