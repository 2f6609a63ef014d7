"""The baselines of a file of OpinionQA on its test side, beside what is damaged in it."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.baselines import (
    best_constant,
    constant,
    groups_disagree,
    leave_one_group_out,
    nearest_questions,
)
from valueflow.profiles.opinionqa.batteries import batteries, check_no_leak, split
from valueflow.profiles.opinionqa.items import Item, by_question, read_items
from valueflow.profiles.opinionqa.letters import LETTERS
from valueflow.profiles.opinionqa.metrics import Measured, Measures, measures

ORACLE = "leave one group out (oracle: sees other groups' answers to the question)"


class Baselines(NamedTuple):
    """What a file holds, and how far one comes without a model.

    Attributes:
        items: of the file, each once.
        damaged: questions with damage, by kind.
        duplicates: items that were there twice.
        near_ties: share of items whose two most frequent answers are close.
        sides: clean items on each side of the split.
        clean: measures by name on the clean items of the test side.
        whole_file: accuracy by name on all items of the file, damaged ones too.
        disagreement: accuracy of the oracle where groups have different modes, on all items, and their number.
    """

    items: int
    damaged: dict[str, int]
    duplicates: int
    near_ties: float
    sides: dict[str, int]
    clean: dict[str, Measures]
    whole_file: dict[str, float]
    disagreement: tuple[float, int]

    def lines(self) -> list[str]:
        """Return the numbers as lines of text."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.damaged.items()))
        sides = ", ".join(f"{side} {number:,}" for side, number in sorted(self.sides.items()))
        lines = [
            f"{self.items:,} items, {self.duplicates} twice; damaged questions: {kinds}; near-ties {self.near_ties:.1%}",
            f"clean items by side: {sides}", "test side, clean items:",
        ]  # fmt: skip
        for name, of in self.clean.items():
            accuracy, contrast = of.accuracy, of.contrast
            lines.append(
                f"  {name}: accuracy {accuracy.estimate:.1%} [{accuracy.low:.1%}, {accuracy.high:.1%}], agreement "
                f"{of.agreement.estimate:.3f} of {of.ceiling:.3f}, JSD {of.jsd.estimate:.3f} bits, distance {of.distance:.3f}, "
                f"contrast r {contrast.estimate:+.2f} [{contrast.low:+.2f}, {contrast.high:+.2f}], macro {of.macro:.1%}, worst "
                f"{of.worst[0]} {of.worst[1]:.1%}"
            )
        lines.append("all items of the file, damaged ones too:")
        lines += [f"  {name}: accuracy {share:.1%}" for name, share in self.whole_file.items()]
        share, number = self.disagreement
        lines.append(f"  {ORACLE}, where groups disagree ({number:,} items): {share:.1%}")
        return lines


def baselines(url: str, seed: int = 0) -> Baselines:
    """Return the baselines of a file.

    Raises:
        InputError: the file is no list of items, or the split leaks.
    """
    found = read_items(url)
    battery_of = batteries(found.items)
    side_of = split(battery_of, seed)
    check_no_leak(found.items, side_of)
    sides: dict[str, list[Item]] = {}
    for item in found.clean:
        sides.setdefault(side_of[item.question_id], []).append(item)
    if lacking := [side for side in ("profile", "test") if side not in sides]:
        raise InputError(
            f"{url} has {len(set(battery_of.values()))} batteries of near-twin questions, too few for a split: the side "
            f"{lacking[0]} has no item without damage; take another seed or more questions"
        )
    known = {question for question, of in by_question(sides["test"]).items() if len(of) > 1}
    test = [item for item in sides["test"] if item.question_id in known]  # the oracle needs another group
    flat = [np.full(len(item.options), 1 / len(item.options)) for item in test]
    letter = best_constant(sides["profile"])
    predictions: dict[str, Sequence[np.ndarray | None]] = {
        "uniform": flat, f"always {LETTERS[letter]}": constant(test, letter),
        "nearest questions": nearest_questions(test, sides["profile"]), ORACLE: leave_one_group_out(test),
    }  # fmt: skip
    clean = {name: measures(test, of, flat, battery_of, seed) for name, of in predictions.items()}
    guess = float(np.mean([1 / len(item.options) for item in test]))  # of equal probabilities, the first is no better
    clean["uniform"] = clean["uniform"]._replace(accuracy=Measured(guess, guess, guess))
    kinds = Counter[str](found.damaged.values())
    ties = float(np.mean([item.is_near_tie for item in found.items]))
    whole, disagreement = _whole(found.items)
    numbers = {side: len(of) for side, of in sides.items()}
    return Baselines(len(found.items), dict(kinds), len(found.duplicates), ties, numbers, clean, whole, disagreement)


def _whole(items: Sequence[Item]) -> tuple[dict[str, float], tuple[float, int]]:
    oracle = leave_one_group_out(items)
    right = np.array([p is not None and int(p.argmax()) == item.mode for item, p in zip(items, oracle, strict=True)])
    known, disagree = np.array([p is not None for p in oracle]), groups_disagree(items)
    letter = int(np.bincount([item.mode for item in items]).argmax())
    return {
        "uniform": float(np.mean([1 / len(item.options) for item in items])),
        f"always {LETTERS[letter]}": float(np.mean([item.mode == letter for item in items])),
        ORACLE: float(right[known].mean()),
    }, (float(right[disagree].mean()), int(disagree.sum()))  # fmt: skip
