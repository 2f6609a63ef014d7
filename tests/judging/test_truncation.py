"""Texts of which an LLM reads the beginning only are named in its answers, whatever the question."""

import pyarrow as pa
import pytest

from valueflow.hives.naming import NAME
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.question import Task, with_replies
from valueflow.records import clean, text_id
from valueflow.voting.descend import DIRECTIONS, Ballot, ballot_table

LIMIT = 50
FITS, LONG, SPACES = "a" * LIMIT, "b" * (LIMIT + 1), "c   " * 24 + "c"  # the last one is 49 characters when it is judged
GROWS = "\u0958" * 26  # each character is two in normal form C
TEXTS = [FITS, LONG, SPACES, GROWS]
LONGER = [text_id(LONG), text_id(GROWS)]
MODELS = (EndpointModel(name="e", model="m", max_chars=LIMIT), VllmModel(name="v", model="m", max_chars=LIMIT))


def questions(task: Task) -> pa.Table:
    """One question about all texts, or one about each."""
    if task is VOTE:
        table = ballot_table([Ballot("direction", "duty", "justice", text_id(text), DIRECTIONS, 0) for text in TEXTS])
        table = table.append_column("vote_id", table["ballot_id"]).append_column("text", pa.array(TEXTS))
    else:
        about = {"window_id": "w", "theory": "svt", "value": "power", "text_ids": [text_id(text) for text in TEXTS]}
        about = about if task is RANK else {"anchor_id": "a"}
        table = pa.Table.from_pylist([about | {"round": 0, "texts": TEXTS}])
    return table.append_column("folder", pa.array([""] * table.num_rows))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
@pytest.mark.parametrize("task", [RANK, VOTE, NAME], ids=lambda task: task.table)
def test_answers_name_the_texts_of_which_the_prompt_holds_the_beginning(task, model):
    table = questions(task)
    rows = table.to_pylist()
    # An engine in Ray carries the columns of the task alone from the question to its reply.
    carried = table.select([*task.columns, "folder"])
    answers = task.read(with_replies(carried, [Reply("A", "", 9, 1)] * len(rows)), model)
    assert [i for ids in answers["truncated_ids"].to_pylist() for i in ids] == LONGER
    prompts = "".join(task.question(row, model).messages[-1]["content"] for row in rows)
    assert prompts.count("…") == len(LONGER)
    assert clean(SPACES) in prompts


def test_a_larger_limit_truncates_nothing():
    model = MODELS[0].model_copy(update={"max_chars": 52})
    answers = RANK.read(with_replies(questions(RANK), [Reply("", "no answer", 0, 0)]), model)
    assert answers["truncated_ids"].to_pylist() == [[]]
