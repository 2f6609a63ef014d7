"""The order in which the encoder judge puts the wordings of each value, from -2 to 2.

    python -m benchmarks.wording [--clauses] [MODEL]

Per value the scores of -2, -1, neutral, 1, 2 (mean over the variants), which pairs are out of order, and how many values are
in order. A persona is read sentence by sentence, and for comparison as one text. Controls: the columns of the 31 other values,
and shuffled levels. The wordings were revised with these scores in view, so that the counts describe them; they do not validate
the judge. With MODEL, as `judge.model`, another encoder reads them, for whose scores nothing was revised.
"""

import sys

import numpy as np

from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.models import MINILM
from valueflow.steering import wording_hash
from valueflow.steering.judged_lint import (
    Readings,
    clause_findings,
    is_ordered,
    nearest_findings,
    order_findings,
    own_levels,
    read,
    sentences,
    whole,
)
from valueflow.steering.wording import wording_table
from valueflow.theories import operational

SHUFFLES = 2000


def other_columns(readings: Readings) -> float:
    """The mean number of values in order, over the other values' columns."""
    mean_VLW = readings.level_VLKW.mean(2)
    num_values = len(mean_VLW)
    rows = np.arange(num_values)
    return float(np.mean([is_ordered(mean_VLW[rows, :, (rows + shift) % num_values]).sum() for shift in range(1, num_values)]))


def shuffled_levels(level_VL: np.ndarray, seed: int = 0) -> float:
    """The mean number of values in order when the levels of each value are shuffled."""
    rng = np.random.default_rng(seed)
    return float(np.mean([is_ordered(rng.permuted(level_VL, axis=1)).sum() for _ in range(SHUFFLES)]))


def pairs_above(readings: Readings, share: float = 0.9) -> int:
    """The number of values of which every adjacent pair is in order in more than `share` of the pairs of variants."""
    own_VLK = np.einsum("vlkv->vlk", readings.level_VLKW)
    right_VL = (own_VLK[:, 1:, None, :] > own_VLK[:, :-1, :, None]).mean((2, 3))
    return int((right_VL > share).all(1).sum())


def show(name: str, readings: Readings) -> None:
    level_VL = own_levels(readings)
    by_value: dict[str, list[str]] = {}
    for finding in order_findings(readings):
        by_value.setdefault(finding.value, []).append(f"{finding.level:+d}: {finding.reason}")
    print(f"\n{name}: scores of -2, -1, neutral, 1, 2")
    for value, level_L in zip(operational(), level_VL, strict=True):
        print(f"  {value:30s}" + "".join(f"{score:7.2f}" for score in level_L) + "  " + "; ".join(by_value.get(value, [])))
    print(f"  in order: {is_ordered(level_VL).sum()} of {len(level_VL)} values; "
          f"with every pair of variants above 90 %: {pairs_above(readings)}")  # fmt: skip
    others, shuffled = other_columns(readings), shuffled_levels(level_VL)
    print(f"  controls: {others:.1f} by another value's column, {shuffled:.1f} by shuffled levels")


def main() -> None:
    models = [word for word in sys.argv[1:] if word != "--clauses"]
    table, ranker = wording_table(), EncoderRanker(EncoderJudge(model=(models or [MINILM])[0]))
    width = ranker.encoder.model.config.hidden_size
    print(f"wording {wording_hash()}")
    by_sentence = read(table, ranker.scores, sentences)
    show("read sentence by sentence", by_sentence)
    show("read as one text", read(table, ranker.scores, whole))
    wrong, signed = clause_findings(by_sentence), int((by_sentence.clause_C != 0).sum())
    print(f"\nrule 3: {len(wrong)} of {signed} sentences have the other sign ({len(by_sentence.clauses) - signed} have none)")
    nearest = nearest_findings(table, lambda texts: ranker.encoder(texts)[:, -width:])
    cells = by_sentence.level_VLKW[:, 1:, :, 0].size
    print(f"rule 9: {len(nearest)} of {cells} wordings are nearer to another value (by chance {cells * 31 / 32:.0f})")
    for finding in (*nearest, *(wrong if "--clauses" in sys.argv else [])):
        print(f"  {finding}")


if __name__ == "__main__":
    main()
