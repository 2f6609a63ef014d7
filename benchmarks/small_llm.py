"""What a small LLM that always answers the first letter is worth by its log-probabilities.

python -m benchmarks.small_llm [VALUES]

A planted model sees people's theta ~ N(0, 1), 0 for neutral texts, plus a content error, in a unit of its own (0.3 nats) and
with noise in each prompt. It prefers the first letter by 8 nats and the middle of the scale by 4 to 6. Its answers are read,
fitted and calibrated as in a build. Printed: accuracy of its single answers, and of pairs by both orders; rank correlation of
theta with people's; coverage, width and error of people's intervals from neutral texts, and of the judge's own.
"""

import asyncio
import json
import re
import sys
import zlib

import numpy as np
import pyarrow as pa
from scipy.stats import norm, spearmanr
from threadpoolctl import threadpool_limits

from valueflow.judging.logprobs import LogprobJudge, neutral_texts, single_answer
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question
from valueflow.numerics.intervals import Z95
from valueflow.ranking import calibration
from valueflow.ranking.content_error import from_neutral, pool_of
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan_table, with_texts
from valueflow.records import LIMIT, text_id

NUM_TEXTS, NUM_NEUTRAL, M, QUANTILE = 120, 40, 16, 0.99
UNIT, BIAS = 0.3, np.array([8.0, 0.0])  # nats
MIDDLE = np.array([0.0, 2.0, 6.0, 2.0, 0.0])
NOISE = 0.3  # of what the model sees in a text, in each prompt


class PlantedLlm:
    """Answers questions about texts whose theta it is given."""

    def __init__(self, theta: dict[str, float]) -> None:
        self.theta = theta

    async def __call__(self, question: Question, round_: int) -> Reply:
        """Return the reply to a question."""
        prompt = question.messages[-1]["content"]
        texts = [json.loads(line) for line in re.findall(r'^(?:[AB]: )?(".*")$', prompt, re.MULTILINE)]
        rng = np.random.default_rng(zlib.crc32(prompt.encode()))
        seen = UNIT * (np.array([self.theta[text] for text in texts]) + NOISE * rng.normal(size=len(texts)))
        logits = BIAS + seen if len(texts) == 2 else MIDDLE + seen[0] * np.arange(-2, 3)
        logprobs = (logits - np.logaddexp.reduce(logits)).tolist()
        return Reply(question.options[int(np.argmax(logits))], "", 100, 1, None, logprobs)


def build(answer: str, content: float, seed: int) -> tuple[np.ndarray, object, np.ndarray, np.ndarray]:
    """Return figures of one value, and its pool, own intensities (3, T) and people's (T) for the intervals."""
    rng = np.random.default_rng(seed)
    neutral_N = np.arange(NUM_TEXTS + NUM_NEUTRAL) >= NUM_TEXTS
    people_N = np.where(neutral_N, 0.0, rng.normal(size=len(neutral_N)))
    judge_N = people_N + content * rng.normal(size=len(neutral_N))
    names = [f"Text {i}." for i in range(len(neutral_N))]
    offsets = dict(zip(neutral_texts(), content * rng.normal(size=len(neutral_texts())), strict=True))
    theta = dict(zip(names, judge_N.tolist(), strict=True)) | offsets
    by_id = {text_id(name): name for name in names}
    planned = with_texts(plan_table("svt", "power", list(by_id), WindowsConfig(k=2, m=M)), by_id)
    rows = asyncio.run(LogprobJudge(VllmModel(name="small", model="m", answer=answer), PlantedLlm(theta))(planned))
    people = dict(zip(map(text_id, names), people_N.tolist(), strict=True))
    ids = sorted(by_id)
    fitted = fit(LikelihoodShard(len(ids), orders_of(rows, ids)))
    index_N = np.array([ids.index(text_id(name)) for name in names])
    theta_N, error_N = fitted.theta_N[index_N], fitted.standard_error_N[index_N]
    scale = calibration.neutral(theta_N, neutral_N, QUANTILE)
    points_N = (scale.unclipped(theta_N + error_N) - scale.unclipped(theta_N - error_N)) / 2
    own_3N = np.stack([scale.to_intensity(theta_N + z * error_N) for z in (0, -Z95, Z95)])
    truth_N = np.clip(LIMIT * people_N / norm.ppf(0.5 + QUANTILE / 2), -LIMIT, LIMIT)
    texts_N = ~neutral_N
    figures = [*_accuracy(rows, people), float(spearmanr(theta_N[texts_N], people_N[texts_N]).statistic)]
    pool = pool_of(scale.unclipped(theta_N), points_N, neutral_N)
    return np.array(figures), pool, own_3N[:, texts_N], truth_N[texts_N]


def _accuracy(rows: pa.Table, people: dict[str, float]) -> list[float]:
    """Accuracy of single answers, and of answers by log-probabilities, of pairs on which people differ."""
    single, read = [], []
    for row in rows.to_pylist():
        a, b = (people[i] for i in row["text_ids"])
        if a != b:
            single.append(single_answer(row["reply"], row["order"]) == (a > b))
            read.append((row["order"] == [0, 1]) == (a > b))
    return [float(np.mean(single)), float(np.mean(read))]


def main() -> None:
    """Print the figures by way to answer and content error."""
    num_values = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(f"{num_values} values of {NUM_TEXTS} texts and {NUM_NEUTRAL} neutral ones, m = {M}; chance: accuracy 0.5, rho 0")
    print(
        "answer    content | accuracy: single, both orders | rho | people's: coverage, width, RMSE | own: coverage, width, RMSE"
    )
    for answer in ("logprobs", "rating"):
        for content in (0.5, 1.0, 2.0):
            with threadpool_limits(1):
                built = [build(answer, content, seed) for seed in range(num_values)]
            errors = from_neutral({f"v{i}": of[1] for i, of in enumerate(built)}, NUM_NEUTRAL * num_values, QUANTILE)
            lines = []
            for error, (_, _, own_3T, truth_T) in zip(errors.values(), built, strict=True):
                for score_3T in (np.array(error.total(*own_3T)), own_3T):
                    inside = np.mean((score_3T[1] <= truth_T) & (truth_T <= score_3T[2]))
                    rmse = np.sqrt(np.mean((score_3T[0] - truth_T) ** 2))
                    lines.append([inside, np.mean(score_3T[2] - score_3T[1]), rmse])
            total, own = np.mean(lines[::2], axis=0), np.mean(lines[1::2], axis=0)
            single, both, rho = np.mean([of[0] for of in built], axis=0)
            numbers = " | ".join(f"{c:.3f} {w:5.1f} {e:5.2f}" for c, w, e in (total, own))
            print(f"{answer:9} {content:7g} | {single:.3f} {both:.3f} | {rho:.3f} | {numbers}", flush=True)


if __name__ == "__main__":
    main()
