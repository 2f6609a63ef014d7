"""What reaches the engine stage of ray.data.llm."""

import asyncio
import json

import pyarrow as pa

from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.vllm_batch import _with_limit


class Stage:
    """Stands in for Ray's stage; `rows` is what it was given."""

    data_column = "__data"
    rows: list[dict]

    async def __call__(self, batch):
        Stage.rows = batch.pop(self.data_column)
        yield {self.data_column: [{"__inference_error__": ""} for _ in Stage.rows]}


def test_sampling_parameters_that_only_some_questions_have_keep_their_types():
    """As a struct column, log-probabilities of some rows become floats, which vLLM's engine does not take."""
    some = [
        {"max_tokens": 8, "logprobs": 20, "structured_outputs": {"choice": ["A", "B"]}},
        {"max_tokens": 200, "temperature": 0.5},
    ]
    column = pa.array([{"sampling_json": json.dumps(parameters)} for parameters in some])
    batch = {"__data": column.to_pandas().to_numpy()}

    async def answers() -> list[dict]:
        return [row async for batch_ in _with_limit(Stage, ErrorLimit(1.0, 2))()(batch) for row in batch_["__data"]]

    assert asyncio.run(answers()) == [{"failure": ""}, {"failure": ""}]
    assert [row["sampling_params"] for row in Stage.rows] == some
    assert all(isinstance(row["sampling_params"]["max_tokens"], int) for row in Stage.rows)
