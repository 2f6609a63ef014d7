"""Put questions with options to an LLM by Ray: every call is committed, cached and resumed like a judge's."""

import functools
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.choices.questions import CHOICE, ChoicePrompt, Reading, check_readings, plan
from valueflow.distributed.answer import AnswerStage, check_answers, collect_answers
from valueflow.distributed.commit import Done
from valueflow.errors import InputError
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.llm.configs import AnyLlm
from valueflow.records import digest
from valueflow.store import Build, ChoicesDetails


def choose(
    model: AnyLlm, prompts: Iterable[ChoicePrompt], readings: Sequence[Reading], root: str, max_error_share: float,
    inputs: Sequence[Build | str], what: str,
) -> Build:  # fmt: skip
    """Return the build of the answers of a model to distinct prompts; a finished one is reused, an unfinished one resumed.

    Args:
        model: the LLM.
        prompts: the questions; equal ones are put once.
        readings: how replies are read, each with calls of its own.
        root: folder or URL of the tables.
        max_error_share: share of calls without a reply above which the job fails; a reply that names no option is no error.
        inputs: what the questions were made from.
        what: name of the stage in messages.

    Raises:
        InputError: there is no question, or the model cannot be read so.
        TooManyErrors: too many calls failed.
        BudgetSpent: the budget of the model is spent; a rerun with a larger one continues.
    """
    check_readings(model, readings)
    calls = plan(prompts, readings)
    if not calls.num_rows:
        raise InputError(f"{what}: there is no question to put")
    fingerprint = voter_fingerprint(model)
    out = Build(root, "choices", digest(__version__, model.name, fingerprint, sorted(calls["choice_id"].to_pylist())))
    if store.reusable(out):
        return out
    stage = AnswerStage(out, CHOICE, max_error_share, calls.num_rows)
    collect_answers(model, stage, functools.partial(_open_calls, calls), calls.num_rows, what)
    totals = check_answers(stage, calls.num_rows, max_error_share, what)
    files = stage.finish()
    unread = sum(pc.sum(pc.not_equal(store.read_part(out, f, ["unread"])["unread"], "")).as_py() or 0 for f in files)
    details = ChoicesDetails(
        models={model.name: model.public()}, fingerprint=fingerprint, readings=list(readings), questions=totals.questions,
        errors=totals.errors, unread=unread, tokens_in=totals.tokens_in, tokens_out=totals.tokens_out,
    )  # fmt: skip
    store.commit(out, details, inputs, files)
    return out


def _open_calls(calls: pa.Table, done: Done) -> Dataset:
    return ray.data.from_arrow(done.open_rows(calls, CHOICE.id_column))
