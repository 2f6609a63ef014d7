"""The plan of a study: rows that are functions of their number, so that no table of them is ever made.

A row is a condition, a replicate and a query, in this order. Neighbours share their persona, which stands first in the prompt:
an engine with a prefix cache reads it once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from valueflow.llm.configs import Sampling
from valueflow.records import digest
from valueflow.steering.conditions import Condition, messages
from valueflow.steering.queries import Query

CHUNK = 2000  # rows that one task plans together
FOLDER_ROWS = 50_000  # of one folder of the build, whose parts are merged at the end
QUESTIONS = pa.schema(
    [
        ("generation_id", pa.string()),
        ("round", pa.int32()),
        ("number", pa.int64()),
        ("dose", pa.string()),
        ("folder", pa.string()),
    ]
)


class Row(NamedTuple):
    """One planned row."""

    condition: Condition
    replicate: int
    query: Query


class Plan(NamedTuple):
    """Rows of one model: conditions × replicates × queries.

    model: hash of the settings of the model that can change a reply; part of every id.
    """

    model: str
    conditions: tuple[Condition, ...]
    queries: tuple[Query, ...]
    replicates: int
    sampling: Sampling
    instruction: str

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.conditions) * self.replicates * len(self.queries)

    @property
    def num_chunks(self) -> int:
        """Number of chunks, each planned by one task."""
        return -(-self.num_rows // CHUNK)

    def row(self, number: int) -> Row:
        """Return a row by its number, from 0."""
        of_condition, query = divmod(number, len(self.queries))
        condition, replicate = divmod(of_condition, self.replicates)
        return Row(self.conditions[condition], replicate, self.queries[query])

    def chunk(self, index: int) -> pa.Table:
        """Return the rows of a chunk as questions (`QUESTIONS`)."""
        numbers = range(index * CHUNK, min((index + 1) * CHUNK, self.num_rows))
        keys = _Keys(self)
        rows = [self.row(number) for number in numbers]
        folder = f"chunk={numbers.start // FOLDER_ROWS:05d}"
        columns = [
            [keys.id(row) for row in rows], [row.replicate for row in rows], list(numbers),
            [dose(row.condition) for row in rows],
            [folder] * len(rows),
        ]  # fmt: skip
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, QUESTIONS, strict=True)], schema=QUESTIONS)

    def chunks(self) -> Iterator[pa.Table]:
        """Yield the rows chunk by chunk."""
        return map(self.chunk, range(self.num_chunks))

    def messages(self, number: int) -> list[dict[str, str]]:
        """Return the chat of a row."""
        row = self.row(number)
        return messages(row.condition, row.query.text, self.instruction)

    def sampling_of(self, generation_id: str) -> dict[str, object]:
        """Return the sampling fields of a row; its seed is made from the job's and its id, so rows are independent samples."""
        fields = self.sampling.model_dump()
        fields["seed"] = int(digest(self.sampling.seed, generation_id), 16) % 2**31
        if not fields["stop"]:
            del fields["stop"]  # servers refuse an empty list
        return fields


class _Keys:
    """Ids of rows; the hash of a condition, which many rows share, is taken once."""

    def __init__(self, plan: Plan) -> None:
        sampling = plan.sampling.model_dump()
        self.prefix = digest(plan.model, sampling, plan.instruction)
        self.keys: dict[int, str] = {}

    def id(self, row: Row) -> str:
        identity = id(row.condition)
        if identity not in self.keys:
            self.keys[identity] = row.condition.key
        return digest(self.prefix, self.keys[identity], row.query.query_id, row.replicate)


def dose(condition: Condition) -> str:
    """Return values and levels of a condition as one text, `svt:power=2|mft:liberty=-1`; the name of a control."""
    pairs = zip(condition.values, condition.levels, strict=True)
    return "|".join(f"{value}={level}" for value, level in pairs) or condition.condition


def plan_hash(plan: Plan, wording: str) -> str:
    """Return the hash of a plan without its model: equal for all models of a job."""
    conditions = [condition.key for condition in plan.conditions]
    queries = [query.query_id for query in plan.queries]
    return digest("plan", conditions, queries, plan.replicates, plan.sampling.model_dump(), plan.instruction, wording)
