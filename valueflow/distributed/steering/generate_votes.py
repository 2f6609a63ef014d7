"""The vote of an LLM on the outcome of each reply, in the place of the rules' outcome where the vote is valid."""

import functools

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.distributed.answer import AnswerStage, check_answers, collect_answers
from valueflow.distributed.cluster import completed_results
from valueflow.distributed.commit import Done, pending_parts
from valueflow.judging.fingerprint import voter_fingerprint
from valueflow.judging.tasks import VOTE
from valueflow.llm.configs import AnyLlm
from valueflow.llm.question import Question
from valueflow.prompts.render import outcome_messages, prompt_hash
from valueflow.records import S, digest
from valueflow.steering.outcomes import OUTCOMES
from valueflow.store import Build, File, VotesDetails

KIND = "outcome"


def _question(row: dict, judge: AnyLlm) -> Question:
    options = list(row["options"])
    return Question(outcome_messages(row["detail"], row["text"], options, judge.max_chars), {"choice": options}, 8)


# A ballot whose detail is the query and whose text is the reply.
OUTCOME_VOTE = VOTE._replace(question=_question)


def judged_outcomes(judge: AnyLlm, out: Build, files: list[File], max_error_share: float, what: str) -> list[File]:
    """Ask a judge for the outcome of every reply, rewrite the parts of the build and return how its manifest lists them.

    The votes are a build of `votes` and are resumed; an invalid vote leaves the outcome of the rules.

    Args:
        judge: the LLM.
        out: an unfinished build of generations whose rows are all there.
        files: its parts.
        max_error_share: share of votes without a valid outcome above which the job fails.
        what: name of the stage in messages.

    Raises:
        TooManyErrors: too many votes are not valid.
        BudgetSpent: the judge's budget is spent; a rerun with a larger one continues.
    """
    votes = Build(out.root, "votes", f"o-{digest(__version__, out.build_id, voter_fingerprint(judge), prompt_hash(KIND))}")
    total = sum(file.rows for file in files)
    if not store.reusable(votes):
        stage, of_votes = AnswerStage(votes, OUTCOME_VOTE, max_error_share, total), f"{what}, outcomes"
        collect_answers(judge, stage, functools.partial(_questions, out, files), total, of_votes)
        totals = check_answers(stage, total, max_error_share, of_votes)
        details = VotesDetails(
            voter=judge.public(), fingerprint=voter_fingerprint(judge), questions=totals.questions, errors=totals.errors,
            tokens_in=totals.tokens_in, tokens_out=totals.tokens_out, truncated=totals.truncated,
        )  # fmt: skip
        store.commit(votes, details, [], stage.finish())
    task = ray.remote(_with_votes).options(num_cpus=1)
    return list(completed_results(f"{what}, outcomes", [task.remote(out, file, votes) for file in files]))


def _questions(out: Build, files: list[File], done: Done) -> Dataset:
    return pending_parts(files, functools.partial(_ballots, out), "vote_id", done)


def _ballots(out: Build, file: File) -> pa.Table:
    rows = store.read_part(out, file.path, ["generation_id", "query", "response", "response_text_id"])
    count = rows.num_rows
    empty = pa.array([""] * count, S)
    columns = {
        "vote_id": rows["generation_id"], "ballot_id": rows["generation_id"], "kind": pa.array([KIND] * count, S),
        "theory": empty, "node": empty, "text_id": rows["response_text_id"],
        "options": pa.array([list(OUTCOMES)] * count, pa.list_(S)),
        "round": pa.array([0] * count, pa.int32()), "detail": rows["query"], "text": pc.fill_null(rows["response"], ""),
        "folder": pa.array([file.path.rpartition("/")[0]] * count, S),
    }  # fmt: skip
    return pa.table(columns)


def _with_votes(out: Build, file: File, votes: Build) -> File:
    """Rewrite a part with the valid votes on its rows; rows without a reply have no outcome."""
    rows, folder = store.read_part(out, file.path), file.path.rpartition("/")[0]
    table = store.read_table(votes, ["ballot_id", "choice"], folder)
    choices = dict(zip(table["ballot_id"].to_pylist(), table["choice"].to_pylist(), strict=True))
    ruled = zip(rows["generation_id"].to_pylist(), rows["outcome"].to_pylist(), rows["outcome_by"].to_pylist(), strict=True)
    voted = [(choices[i], "judge") if outcome and choices.get(i) else (outcome, by) for i, outcome, by in ruled]
    for column, name in enumerate(("outcome", "outcome_by")):
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), pa.array([vote[column] for vote in voted], S))
    return store.rewrite(out, file.path, rows)
