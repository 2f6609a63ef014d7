"""LLM judges that are read by the log-probabilities of their answers: pairs in both orders, or ratings of single texts.

A small model may answer the first letter whatever the texts are; the probability that it gives to each letter still moves with
them. What does not depend on the texts is taken away, and what remains is measured in units of its own noise:

- *logprobs*: a window of two texts is shown in both orders. The margin is half the difference of the two log-odds of the first
  letter, so that any preference for a position cancels.
- *rating*: each text is shown alone, with a scale of five numbers. Its score is the expected number by the log-probabilities,
  less the mean of neutral texts.

Neutral texts, whose truth is zero, show what a margin is worth: the noise of a value is the root mean square margin between
two of them. A margin of d noises is then the log-odds d π/√3 (the logistic distribution with the noise's standard deviation),
that is Plackett-Luce with a known worth of each text, which the fit reads like any judge's answers: as the weight of an order
of two texts, or as an order of more that is drawn by a hash of the window's id.
"""

import asyncio
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.errors import InputError
from valueflow.judging.answers import answers
from valueflow.judging.kind import Ask
from valueflow.judging.parse import order_constraint
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import AnyLlm
from valueflow.llm.question import NO_LOGPROBS, SMALLEST, AskLlm, Question, Task, ask_all
from valueflow.prompts.render import LETTERS, rank_messages, scale_messages
from valueflow.records import LIMIT, ValueId, digest
from valueflow.tabular import strict_rows

SCALE = ("1", "2", "3", "4", "5")
NUM_NEUTRAL = 20  # neutral texts per value, half as many pairs
MIN_NEUTRAL = 5  # of them or of their pairs that must have an answer
POINTS = np.linspace(-LIMIT, LIMIT, len(SCALE))
MAX_TOKENS = 8
# Alternatives of a token that are requested: the most that OpenAI and vLLM list by default.
ALTERNATIVES = 20
# Log-odds per standard deviation of the logistic distribution.
LOGISTIC = math.pi / math.sqrt(3)
MIN_NOISE = 1e-6  # of a server whose log-probabilities never change
MAX_CALLS = 200_000  # whose replies are kept in memory
_SINGLE = re.compile(r"^(\S+) [+-]\d+\.\d+$", re.MULTILINE)


def reads_logprobs(config: AnyLlm, task: Task) -> bool:
    """Return whether the answers to a task are read by log-probabilities: those to windows, where `answer` says so."""
    return task == RANK and config.answer != "letter"


def llm_answers(config: AnyLlm, task: Task, ask: AskLlm, unreadable: Callable[[str], None] = lambda _: None) -> Ask:
    """Return the function that answers batches of a task: by log-probabilities, or by the text of replies (`ask_all`)."""
    if reads_logprobs(config, task):
        return LogprobJudge(config, ask)
    return functools.partial(ask_all, task=task, config=config, ask=ask, unreadable=unreadable)


class Call(NamedTuple):
    """A question with the round that the call cache distinguishes."""

    question: Question
    round: int


class Judgement(NamedTuple):
    """The order of a window: positions, best first, with its probability (two texts), and what it rests on; or an error."""

    order: list[int] | None
    weight: float | None
    reply: str
    error: str | None


class _Put:
    """A question that was put: the task of its reply, and how many wait for it."""

    def __init__(self, reply: asyncio.Future[Reply | None]) -> None:
        self.reply, self.num_waiting = reply, 0


class LogprobJudge:
    """Answers windows by the log-probabilities of an LLM. Of equal questions, one is put; its tokens count in one window.

    A question is taken back once all who wait for its reply have been cancelled.

    Args:
        config: an LLM with `answer` logprobs or rating.
        ask: puts a question to it.
    """

    def __init__(self, config: AnyLlm, ask: AskLlm) -> None:
        self.config, self.ask = config, ask
        self._calls: dict[str, _Put] = {}

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of the windows whose questions were all put, in their order.

        Windows of one text ask how far it concerns the value, which is no matter of log-probabilities.

        Raises:
            InputError: the judge answers windows of two, and one has more.
        """
        is_alone = pc.equal(pc.list_value_length(windows["text_ids"]), 1)
        # Rankings first: with them come the questions about neutral texts, for which other callers may wait too.
        ranked, alone = await asyncio.gather(
            self._rankings(windows.filter(pc.invert(is_alone))),
            ask_all(windows.filter(is_alone), RANK, self.config, self.ask),
        )
        answered = pa.concat_tables([alone, ranked])
        place = {window_id: n for n, window_id in enumerate(answered["window_id"].to_pylist())}
        return answered.take(pa.array([place[i] for i in windows["window_id"].to_pylist() if i in place], pa.int64()))

    async def _rankings(self, windows: pa.Table) -> pa.Table:
        rows = windows.to_pylist()
        order = _values_first(rows)
        replies = await asyncio.gather(*(self._replies(calls_of(rows[i], self.config)) for i in order))
        of_rows = [of_row for _, of_row in sorted(zip(order, replies, strict=True), key=lambda pair: pair[0])]
        put = [i for i, replies in enumerate(of_rows) if None not in replies]
        replies_of = {i: [reply for reply in of_rows[i] if reply is not None] for i in put}
        judged = [judgement(rows[i], replies_of[i], self.config) for i in put]
        return answers(
            windows.take(pa.array(put, pa.int64())),
            self.config.name,
            [j.order for j in judged],
            [j.reply for j in judged],
            [j.error for j in judged],
            [j.weight for j in judged],
            [sum(reply.tokens_in for reply in replies_of[i]) for i in put],
            [sum(reply.tokens_out for reply in replies_of[i]) for i in put],
            max_chars=self.config.max_chars,
        )

    async def _replies(self, calls: list[Call]) -> list[Reply | None]:
        return await asyncio.gather(*(self._reply(call) for call in calls))

    async def _reply(self, call: Call) -> Reply | None:
        key = digest(call.question.messages, call.round)
        put = self._calls.get(key)
        if is_new := put is None:
            put = self._calls[key] = _Put(asyncio.ensure_future(self.ask(*call)))
            if len(self._calls) > MAX_CALLS:
                self._calls.pop(next(iter(self._calls)))
        reply: Reply | None = None
        put.num_waiting += 1
        try:
            reply = await asyncio.shield(put.reply)
        finally:
            put.num_waiting -= 1
            is_free = reply is None or (reply.error and not reply.tokens_in and not reply.tokens_out)
            is_cancelled = not put.num_waiting and put.reply.cancel()  # no effect on a reply that there is
            if ((is_free and put.reply.done()) or is_cancelled) and self._calls.get(key) is put:  # it is put again
                del self._calls[key]
        return reply if is_new or reply is None else reply._replace(tokens_in=0, tokens_out=0)


def _values_first(rows: list[dict]) -> list[int]:
    """Numbers of the windows: the first one of each value, then the second ones, and so on."""
    seen: Counter[tuple[str, str]] = Counter()
    rank = []
    for row in rows:
        rank.append(seen[row["theory"], row["value"]])
        seen[row["theory"], row["value"]] += 1
    return sorted(range(len(rows)), key=rank.__getitem__)


def calls_of(row: dict, config: AnyLlm) -> list[Call]:
    """Return the questions of a window with its texts: its own, then those about neutral texts."""
    value, texts = ValueId.of(row["theory"], row["value"]), list(row["texts"])
    if config.answer == "logprobs":
        if len(texts) != 2:
            raise InputError(
                f"judge {config.name!r} judges windows of 2 texts (answer: logprobs), this one has {len(texts)}; set k to 2, "
                "or answer to rating"
            )
        return [*_both_orders(value, texts, row["round"], config.max_chars), *_neutral_pairs(value, config.max_chars)]
    return [*(_rating(value, text, config.max_chars) for text in texts), *_neutral_ratings(value, config.max_chars)]


def judgement(row: dict, replies: list[Reply], config: AnyLlm) -> Judgement:
    """Return the order of a window by the replies to `calls_of(row, config)`."""
    own = len(row["texts"])
    failed = [reply for reply in replies[:own] if not _options(reply)]
    if failed:
        return Judgement(None, None, failed[0].text, failed[0].error or NO_LOGPROBS)
    read = _margins if config.answer == "logprobs" else _scores
    single, neutral = read(replies[:own]), read([reply for reply in _whole(replies[own:], config) if _options(reply)])
    if len(neutral) < MIN_NEUTRAL:
        reason = next((reply.error for reply in replies[own:] if reply.error), NO_LOGPROBS)
        return Judgement(None, None, "", f"only {len(neutral)} of the neutral texts have an answer: {reason}")
    if config.answer == "logprobs":
        noise = math.sqrt(float(np.mean(neutral**2)))
        worth_K = np.array([single[0], 0.0])
        numbers = [float(log_odds) for log_odds in map(_log_odds, replies[:own])]
    else:
        noise = math.sqrt(2) * float(np.std(neutral, ddof=1))
        worth_K = single - neutral.mean()
        numbers = worth_K.tolist()
    order, weight = _order(LOGISTIC * worth_K / max(noise, MIN_NOISE), row["window_id"])
    return Judgement(order, weight, _record(replies[:own], numbers, config), None)


def single_answer(reply: str | None, order: list[int] | None) -> float | None:
    """Return the answer that a judge gives to a window of two as shown, without its log-probabilities.

    Returns:
        1 if the first text wins, 0 if the second does, 0.5 for equal ratings; None for no answer.
    """
    if order is None:
        return None
    likeliest = _SINGLE.findall(reply or "")
    if len(likeliest) != 2:
        return float(order[0] == 0)
    if likeliest[0] in LETTERS:  # the second one is the answer to the other order
        return float(likeliest[0] == LETTERS[0])
    first, second = map(int, likeliest)
    return 0.5 + 0.5 * float(np.sign(first - second))


@functools.cache
def neutral_texts() -> list[str]:
    """Return the neutral texts that show a judge's offset and noise."""
    with resources.as_file(resources.files("valueflow").joinpath("samples/neutral.csv")) as path:
        return [row.fields["text"] for row in itertools.islice(strict_rows(str(path), ["text"]), NUM_NEUTRAL)]


def _both_orders(value: ValueId, texts: list[str], round_: int, max_chars: int) -> list[Call]:
    return [
        Call(
            Question(rank_messages(value, shown, max_chars), order_constraint(2), MAX_TOKENS, True, needs_logprobs=True), round_
        )
        for shown in (texts, texts[::-1])
    ]


def _rating(value: ValueId, text: str, max_chars: int) -> Call:
    messages = scale_messages(value, text, max_chars)
    return Call(Question(messages, {"choice": list(SCALE)}, MAX_TOKENS, True, ALTERNATIVES, True), 0)


@functools.lru_cache(256)
def _neutral_pairs(value: ValueId, max_chars: int) -> list[Call]:
    texts = neutral_texts()
    return [call for i in range(0, NUM_NEUTRAL, 2) for call in _both_orders(value, texts[i : i + 2], 0, max_chars)]


@functools.lru_cache(256)
def _neutral_ratings(value: ValueId, max_chars: int) -> list[Call]:
    return [_rating(value, text, max_chars) for text in neutral_texts()]


def _options(reply: Reply) -> list[float] | None:
    """Log-probability of each option; of a reply that was cached with its probability alone, from that."""
    if reply.error or reply.logprobs:
        return None if reply.error else reply.logprobs
    if reply.first_probability is None:
        return None
    return [math.log(max(p, SMALLEST)) for p in (reply.first_probability, 1 - reply.first_probability)]


def _whole(replies: list[Reply], config: AnyLlm) -> list[Reply]:
    """The replies without the pairs of which one order has no answer."""
    if config.answer == "rating":
        return replies
    pairs = zip(replies[::2], replies[1::2], strict=True)
    return [reply for pair in pairs if all(map(_options, pair)) for reply in pair]


def _log_odds(reply: Reply) -> float:
    first, second = _options(reply) or (math.nan, math.nan)
    return first - second


def _margins(replies: list[Reply]) -> np.ndarray:
    """Half the difference of the log-odds of each two replies: a text against another, then the other way round."""
    log_odds = np.array([_log_odds(reply) for reply in replies]).reshape(-1, 2)
    return (log_odds[:, 0] - log_odds[:, 1]) / 2


def _scores(replies: list[Reply]) -> np.ndarray:
    """Expected rating of each reply, in points from -10 to 10."""
    logprob_TO = np.array([_options(reply) for reply in replies]).reshape(-1, len(SCALE))
    share_TO = np.exp(logprob_TO - logprob_TO.max(1, keepdims=True, initial=-np.inf))
    return (share_TO @ POINTS) / share_TO.sum(1)


def _order(worth_K: np.ndarray, window_id: str) -> tuple[list[int], float | None]:
    """The order of texts of known worth, in log-odds: the likelier one with its probability, or one drawn for the window."""
    if len(worth_K) == 2:
        first = int(worth_K[1] > worth_K[0])
        return [first, 1 - first], 1 / (1 + math.exp(-abs(float(worth_K[0] - worth_K[1]))))
    noise_K = np.random.default_rng(int(digest(window_id), 16)).gumbel(size=len(worth_K))
    return np.argsort(-(worth_K + noise_K)).tolist(), None


def _record(replies: list[Reply], numbers: list[float], config: AnyLlm) -> str:
    """A line for each reply: its likeliest option, and the log-odds of the first letter or the score of the text."""
    options = LETTERS[:2] if config.answer == "logprobs" else SCALE
    likeliest = [options[int(np.argmax(_options(reply) or [0.0]))] for reply in replies]
    return "\n".join(f"{option} {number:+.3f}" for option, number in zip(likeliest, numbers, strict=True))
