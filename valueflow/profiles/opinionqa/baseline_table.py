"""The baselines of a file of OpinionQA on its test side."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from valueflow.choices.letters import LETTERS
from valueflow.profiles.opinionqa.baselines import (
    best_constant,
    constant,
    groups_disagree,
    leave_one_group_out,
    nearest_questions,
    uniform_accuracy,
)
from valueflow.profiles.opinionqa.batteries import SIDES
from valueflow.profiles.opinionqa.items import Item
from valueflow.profiles.opinionqa.metrics import Measured, Measures, measures
from valueflow.profiles.opinionqa.sides import Sides

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


def baselines(file: Sides, seed: int = 0) -> Baselines:
    """Return the baselines of a file on the clean items of its test side, which are known by more than one group."""
    test = file.comparable("test")
    predictions, flat = predicted(test, file.clean("profile")), uniform(test)
    clean = {name: measures(test, of, flat, file.battery_of, seed) for name, of in predictions.items()}
    clean["uniform"] = guessed(clean["uniform"], test)
    kinds = Counter[str](file.items.damaged.values())
    ties = float(np.mean([item.is_near_tie for item in file.items.items]))
    whole, disagreement = _whole(file.items.items)
    numbers: dict[str, int] = {side: len(file.clean(side)) for side in SIDES}
    return Baselines(
        len(file.items.items), dict(kinds), len(file.items.duplicates), ties, numbers, clean, whole, disagreement
    )  # fmt: skip


def predicted(test: Sequence[Item], profile: Sequence[Item]) -> dict[str, Sequence[np.ndarray | None]]:
    """Return by name the predictions of all baselines for items of the test side."""
    letter = best_constant(profile)
    return {
        "uniform": uniform(test), f"always {LETTERS[letter]}": constant(test, letter),
        "nearest questions": nearest_questions(test, profile), ORACLE: leave_one_group_out(test),
    }  # fmt: skip


def uniform(items: Sequence[Item]) -> list[np.ndarray]:
    """Return equal probabilities of the options."""
    return [np.full(len(item.options), 1 / len(item.options)) for item in items]


def guessed(of: Measures, items: Sequence[Item]) -> Measures:
    """Return the measures of equal probabilities, of which the first is no better: their accuracy is that of a guess."""
    guess = uniform_accuracy(items)
    return of._replace(accuracy=Measured(guess, guess, guess))


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
