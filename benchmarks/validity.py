"""Do the intervals hold people's intensity? Total and judge's own intervals side by side.

python -m benchmarks.validity simulation [VALUES] [FIRST_SEED]
python -m benchmarks.validity relevance
python -m benchmarks.validity labels ../shared/data/vidb_anchors/dev.jsonl

simulation: theta_people ~ N(0, 2² sharpness²) nats; each judge has a content error of 0.5, 1 or 2 of these spreads; windows are
answered as Plackett-Luce says, fitted and calibrated as in a build, and new texts are scored by one judge as in an evaluation.

relevance: half of the texts do not concern the value; a judge says of each whether it does, and is right in a share of cases.

labels: the encoder judge ranks the sample corpus (32 values), scores the rated texts of a file among it, and is calibrated with
four fifths of the texts; the figures are of the last fifth, each text once. Nothing is chosen by them.
"""

import sys
from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from benchmarks.coverage import ordered
from valueflow import vidb
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.numerics.intervals import Z95
from valueflow.ranking import calibration
from valueflow.ranking.calibration import Calibration
from valueflow.ranking.content_error import ContentError, Pool, consensus_share, from_neutral, pool_of
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import Fit, fit
from valueflow.ranking.rating_regression import RatedTexts, from_ratings
from valueflow.ranking.windows import WindowsConfig, plan, with_texts
from valueflow.records import LIMIT, ValueId, text_id
from valueflow.tabular import strict_rows
from valueflow.vidb.version import Anchors

QUANTILE = 0.99
NUM_TEXTS, NUM_NEUTRAL, NUM_NEW, NUM_RATED = 200, 40, 100, 100
NUM_FOLDS = 5
TOPIC_ERROR = ContentError(slope=0.8, sd=2.0, spread=5.0, shared_sd=0.3)


class Scores(NamedTuple):
    """Texts with people's intensity and the judge's, own interval included."""

    truth_T: np.ndarray
    own_3T: np.ndarray

    def line(self, error: ContentError, num_anchors: int = 0) -> np.ndarray:
        """Coverage, width and root mean square error of the total, then of the judge's own interval."""
        return np.concatenate(
            [_quality(self.truth_T, np.array(error.total(*self.own_3T, num_anchors))), _quality(self.truth_T, self.own_3T)]
        )


def _quality(truth_T: np.ndarray, score_3T: np.ndarray) -> np.ndarray:
    inside_T = (score_3T[1] <= truth_T) & (truth_T <= score_3T[2])
    error_T = score_3T[0] - truth_T
    return np.array([inside_T.mean(), (score_3T[2] - score_3T[1]).mean(), np.sqrt((error_T**2).mean())])


class Built(NamedTuple):
    """A value that simulated judges built: its pool, scores of its texts and of new ones, content error from ratings."""

    pool: Pool
    share: float  # of the content error in the judges' axis, from their disagreement; 0 for one judge
    rows: Scores
    new: Scores
    rated: ContentError


def build(content: float, sharpness: float, k: int, tails: str, num_judges: int, seed: int) -> Built:
    """Simulate one value: `NUM_TEXTS` texts and `NUM_NEUTRAL` neutral ones that are ranked, `NUM_NEW` that are scored."""
    rng = np.random.default_rng(seed)
    count = NUM_TEXTS + NUM_NEUTRAL + NUM_NEW
    neutral_N = (np.arange(count) >= NUM_TEXTS) & (np.arange(count) < NUM_TEXTS + NUM_NEUTRAL)
    people_N = np.where(neutral_N, 0.0, rng.normal(size=count))
    topic_N = rng.integers(0, 5, count)
    judge_JN = np.stack([people_N + content * _errors(count, tails, topic_N, rng) for _ in range(num_judges)])
    pool = NUM_TEXTS + NUM_NEUTRAL
    truth_N = np.clip(LIMIT * people_N / np.quantile(np.abs(people_N[:pool]), QUANTILE), -LIMIT, LIMIT)
    windows_WK = plan(pool, WindowsConfig(k=k, m=24 if k == 2 else 20), rng).items_WK
    orders = [ordered(2 * sharpness * theta_N, windows_WK, rng) for theta_N in judge_JN]
    with threadpool_limits(1):
        fits = [fit(LikelihoodShard(pool, [of_judge])) for of_judge in orders]
        merged = fits[0] if num_judges == 1 else fit(LikelihoodShard(pool, orders))
    pool_neutral_N = neutral_N[:pool]
    scale = calibration.neutral(merged.theta_N, pool_neutral_N, QUANTILE)
    own_3N = _own(merged, scale)
    summary = pool_of(scale.unclipped(merged.theta_N), _points(merged, scale), pool_neutral_N)
    share = 0.0
    if num_judges > 1:
        of_texts = ~pool_neutral_N
        theta_JN, error_JN = (np.stack([getattr(f, name)[of_texts] for f in fits]) for name in ("theta_N", "standard_error_N"))
        share = consensus_share(theta_JN, error_JN)
    texts_N, rest_N = np.arange(pool) < NUM_RATED, (np.arange(pool) >= NUM_RATED) & ~pool_neutral_N
    rated = RatedTexts([str(i) for i in range(NUM_RATED)], *own_3N[:, texts_N], truth_N[:pool][texts_N])
    by_ratings = from_ratings({"v": rated}, ["v"], "ratings", "")["v"]
    new = _scored(judge_JN, 2 * sharpness, merged, scale, k, rng)
    return Built(summary, share, Scores(truth_N[:pool][rest_N], own_3N[:, rest_N]), Scores(truth_N[pool:], new), by_ratings)


def _errors(count: int, tails: str, topic_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if tails == "t3":
        return rng.standard_t(3, count) / np.sqrt(3)
    size_N = np.array([0.3, 0.6, 1.0, 1.2, 1.5])[topic_N] / np.sqrt(0.948) if tails == "topics" else 1.0
    return size_N * rng.normal(size=count)


def _points(fitted: Fit, scale: Calibration) -> np.ndarray:
    above_N, below_N = (scale.unclipped(fitted.theta_N + sign * fitted.standard_error_N) for sign in (1, -1))
    return (above_N - below_N) / 2


def _own(fitted: Fit, scale: Calibration) -> np.ndarray:
    return np.stack([scale.to_intensity(fitted.theta_N + z * fitted.standard_error_N) for z in (0, -Z95, Z95)])


def _scored(
    judge_JN: np.ndarray, sharpness: float, merged: Fit, scale: Calibration, k: int, rng: np.random.Generator
) -> np.ndarray:
    """Own intensity, low and high of the new texts by the first judge, as the evaluator scores them."""
    pool = judge_JN.shape[1] - NUM_NEW
    order = np.argsort(merged.theta_N)
    ids = np.array([f"t{i}" for i in range(judge_JN.shape[1])])
    anchors = Anchors("svt", "simulated", ids[:pool][order], merged.theta_N[order], scale)
    theta = {i: sharpness * x for i, x in zip(ids, judge_JN[0], strict=True)}

    def answer(windows: pa.Table) -> list[list[int]]:
        shown = [np.array([theta[i] for i in window]) for window in windows["text_ids"].to_pylist()]
        return [np.argsort(-(x + rng.gumbel(size=len(x)))).tolist() for x in shown]

    return own_scores(anchors, ids[pool:].tolist(), EvaluatorConfig(k=max(k, 3), m=5), answer)


def own_scores(
    anchors: Anchors, ids: list[str], config: EvaluatorConfig, answer: Callable[[pa.Table], list[list[int]]]
) -> np.ndarray:
    """Rounds of an evaluation; the judge's own intensity, low and high of every text (3, T)."""
    scoring = Scoring(anchors, ids, 1.0, config)
    for round_ in range(config.m):
        windows = scoring.plan(round_)
        rows = windows.to_pylist()
        for row, order in zip(rows, answer(windows), strict=True):
            row |= {"order": order, "weight": None}
        scoring.take(enumerate(rows))
    return np.array(scoring.posterior.scores()).T


def simulation(num_values: int = 12, first_seed: int = 0) -> None:
    """Print coverage, width and error over the grid, for rows of a VIDB and for new texts.

    The values of a cell are those of one version: the spread of their neutral texts is pooled, except in `alone`.
    """
    print("texts  errors basis         content sharpness k | total: coverage width RMSE | judge's own: coverage width RMSE")
    for tails in ("normal", "t3", "topics"):
        for content in (0.5, 1.0, 2.0):
            for sharpness in (0.5, 1.0, 3.0) if tails == "normal" else (1.0,):
                for k in (2, 5):
                    for (basis, texts), line in cell(tails, content, sharpness, k, num_values, first_seed).items():
                        total, own = np.split(line, 2)
                        numbers = " | ".join(f"{c:8.3f} {w:5.1f} {e:5.2f}" for c, w, e in (total, own))
                        print(f"{texts:5} {tails:7} {basis:13} {content:7g} {sharpness:9g} {k} |        {numbers}", flush=True)


def cell(
    tails: str, content: float, sharpness: float, k: int, num_values: int, first_seed: int = 0
) -> dict[tuple[str, str], np.ndarray]:
    """Return mean figures by what the intervals rest on and by kind of text: coverage, width, error, then the judge's own."""
    seeds = range(first_seed, first_seed + num_values)
    one = {f"v{v}": build(content, sharpness, k, tails, 1, v) for v in seeds}
    three = {f"v{v}": build(content, sharpness, k, tails, 3, v) for v in seeds}
    num_neutral, num_anchors = NUM_NEUTRAL * num_values, 5 * (max(k, 3) - 1)
    shares = {value: built.share for value, built in three.items()}
    bases = {
        "neutral": from_neutral({v: b.pool for v, b in one.items()}, num_neutral, QUANTILE),
        "neutral alone": {v: from_neutral({v: b.pool}, NUM_NEUTRAL, QUANTILE)[v] for v, b in one.items()},
        "100 ratings": {v: b.rated for v, b in one.items()},
        "three judges": from_neutral({v: b.pool for v, b in three.items()}, num_neutral, QUANTILE, shares=shares),
    }
    lines: dict[tuple[str, str], np.ndarray] = {}
    for basis, errors in bases.items():
        built = three if basis == "three judges" else one
        lines[basis, "VIDB"] = np.mean([built[v].rows.line(errors[v]) for v in errors], axis=0)
        if built is one:
            lines[basis, "new"] = np.mean([built[v].new.line(errors[v], num_anchors) for v in errors], axis=0)
    return lines


class TextsOfAnyTopic(NamedTuple):
    """Texts of which half do not concern the value, where people's intensity is 0, and the relevance that a judge says."""

    scores: Scores
    relevance_T: np.ndarray

    def total(self, knows_relevance: bool = True) -> np.ndarray:
        """People's intensity with its interval (3, T)."""
        own_3T = self.scores.own_3T
        return np.array(TOPIC_ERROR.total(*own_3T, relevance_T=self.relevance_T if knows_relevance else None))

    def quality(self, knows_relevance: bool) -> np.ndarray:
        """Coverage, width and root mean square error."""
        return _quality(self.scores.truth_T, self.total(knows_relevance))


def texts_of_any_topic(accuracy: float, off_topic: float, size: int = 20_000) -> TextsOfAnyTopic:
    """Draw texts; the judge puts those that do not concern the value at random places of spread `off_topic` (others: 5 points).

    `accuracy` is the share of texts of which the judge says rightly whether they concern the value.
    """
    rng, sampling = np.random.default_rng(0), 0.5
    concerns_T = rng.random(size) < 0.5
    judge_T = rng.normal(0, np.where(concerns_T, 5.0, off_topic))
    people_T = TOPIC_ERROR.slope * judge_T + np.hypot(TOPIC_ERROR.sd, TOPIC_ERROR.shared_sd) * rng.normal(size=size)
    said_T = np.where(concerns_T == (rng.random(size) < accuracy), accuracy, 1 - accuracy)
    own_T = judge_T + sampling * rng.normal(size=size)
    own_3T = np.array([own_T, own_T - Z95 * sampling, own_T + Z95 * sampling])
    return TextsOfAnyTopic(Scores(np.where(concerns_T, people_T, 0.0), own_3T), said_T)


def relevance() -> None:
    """Print the quality of intervals with and without the relevance that a judge says."""
    print("right off-topic | with relevance: coverage width RMSE, coverage of texts on the topic | without: the same")
    for accuracy in (0.7, 0.9, 1.0):
        for off_topic in (2.0, 5.0):
            texts = texts_of_any_topic(accuracy, off_topic)
            on_T, numbers = texts.scores.truth_T != 0, []
            for knows in (True, False):
                on_topic = _quality(texts.scores.truth_T[on_T], texts.total(knows)[:, on_T])[0]
                numbers.append("{:8.3f} {:5.1f} {:5.2f} {:6.3f}".format(*texts.quality(knows), on_topic))
            print(f"{accuracy:5g} {off_topic:9g} |                 {' | '.join(numbers)}")


def encoder_versions() -> tuple[dict[ValueId, Anchors], EncoderRanker]:
    """The 32 values of the sample corpus as the encoder judge ranks them, with their content errors."""
    rows: dict[ValueId, list[str]] = {}
    neutral = [row["text"] for row in _sample("neutral", ["text"])]
    for row in _sample("corpus", ["theory", "value", "text"]):
        rows.setdefault(ValueId.of(row["theory"], row["value"]), []).append(row["text"])
    ranker, rng = EncoderRanker(EncoderJudge(num_cpus=1)), np.random.default_rng(0)
    pools, anchors = {}, {}
    for value, texts in rows.items():
        texts = [*texts, *(neutral[i] for i in rng.permutation(len(neutral))[:20])]
        ids, column = np.array([text_id(text) for text in texts]), ranker.columns[value]
        score_N = ranker.scores(texts)[:, column]
        windows_WK = plan(len(texts), WindowsConfig(k=2, m=16), rng).items_WK
        best_first = np.take_along_axis(windows_WK, np.argsort(-score_N[windows_WK], axis=1, kind="stable"), axis=1)
        with threadpool_limits(1):
            fitted = fit(LikelihoodShard(len(texts), [Orders(best_first, np.ones(len(best_first)))]))
        neutral_N = np.arange(len(texts)) >= len(texts) - 20
        scale = calibration.neutral(fitted.theta_N, neutral_N, QUANTILE)
        pools[value] = pool_of(scale.unclipped(fitted.theta_N), _points(fitted, scale), neutral_N)
        order = np.argsort(fitted.theta_N)
        anchors[value] = Anchors(value.theory, value.node, ids[order], fitted.theta_N[order], scale)
    errors = from_neutral(pools, len(neutral), QUANTILE)
    return {value: at._replace(content_error=errors[value]) for value, at in anchors.items()}, ranker


def _sample(name: str, columns: list[str]) -> list[dict[str, str]]:
    with resources.as_file(resources.files("valueflow").joinpath(f"samples/{name}.csv")) as path:
        return [row.fields for row in strict_rows(str(path), columns)]


def encoder_scores(path: str) -> tuple[dict[ValueId, RatedTexts], dict[ValueId, Anchors]]:
    """The rated texts of a file with the encoder judge's intensity among the sample corpus (k = 6, m = 3)."""
    by_value: dict[ValueId, dict[str, tuple[str, float]]] = {}
    for value, text, rating in vidb.read_anchors(path):
        by_value.setdefault(value, {}).setdefault(text_id(text), (text, rating))
    anchors, ranker = encoder_versions()
    corpus = {text_id(row["text"]): row["text"] for name in ("corpus", "neutral") for row in _sample(name, ["text"])}
    rated = {}
    for value, texts in by_value.items():
        lookup = corpus | {i: text for i, (text, _) in texts.items()}

        def answer(windows: pa.Table, lookup: dict[str, str] = lookup) -> list[list[int]]:
            return ranker(with_texts(windows, lookup))["order"].to_pylist()

        own_3N = own_scores(anchors[value], list(texts), EvaluatorConfig(k=6, m=3), answer)
        rated[value] = RatedTexts(list(texts), *own_3N, np.array([rating for _, rating in texts.values()]))
    return rated, anchors


def labels(path: str) -> None:
    """Print the figures of held-out rated texts, over all and per theory."""
    rated, anchors = encoder_scores(path)
    ids = sorted({i for texts in rated.values() for i in texts.ids})
    folds = dict(zip(ids, (np.random.default_rng(1).permutation(len(ids)) % NUM_FOLDS).tolist(), strict=True))
    columns: dict[str, list[np.ndarray]] = {"calibrated": [], "neutral": [], "own": []}
    truths, theories = [], []
    for fold in range(NUM_FOLDS):
        fold_by = {value: np.array([folds[i] for i in texts.ids]) for value, texts in rated.items()}
        training = {value: texts.take(fold_by[value] != fold) for value, texts in rated.items()}
        errors = from_ratings(training, list(rated), "record", "")
        for value, texts in rated.items():
            held_out = texts.take(fold_by[value] == fold)
            own_3T = np.array(held_out[1:4])
            truths.append(held_out.rating_N)
            theories += [value.theory] * len(held_out.ids)
            columns["own"].append(own_3T)
            columns["calibrated"].append(np.array(errors[value].total(*own_3T)))
            columns["neutral"].append(np.array(anchors[value].content_error.total(*own_3T, 15)))
    truth_T, theory_T = np.concatenate(truths), np.array(theories)
    print(f"{len(truth_T)} texts; always zero: RMSE {np.sqrt((truth_T**2).mean()):.2f}")
    print("interval     theory  texts coverage width RMSE")
    for name, parts in columns.items():
        score_3T = np.concatenate(parts, axis=1)
        for theory in ("all", *sorted(set(theories))):
            at = np.full(len(truth_T), True) if theory == "all" else theory_T == theory
            coverage, width, error = _quality(truth_T[at], score_3T[:, at])
            print(f"{name:12} {theory:7} {at.sum():5d} {coverage:8.3f} {width:5.1f} {error:4.2f}")


def main() -> None:
    """Run the part that the command line names."""
    if sys.argv[1] == "labels":
        labels(sys.argv[2])
    elif sys.argv[1] == "relevance":
        relevance()
    else:
        simulation(*map(int, sys.argv[2:]))


if __name__ == "__main__":
    main()
