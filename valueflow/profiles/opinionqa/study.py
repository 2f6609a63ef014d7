"""How a model answers OpinionQA when it is told of a group: predictions of each arm, their measures and differences.

Shapes: N items, O options, D draws of batteries.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from valueflow.choices.questions import Answered, ChoicePrompt
from valueflow.choices.study import Row
from valueflow.errors import InputError
from valueflow.numerics.p_values import holm
from valueflow.profiles.opinionqa.arms import Arm, preamble
from valueflow.profiles.opinionqa.baseline_table import guessed, predicted, uniform
from valueflow.profiles.opinionqa.items import Item
from valueflow.profiles.opinionqa.metrics import Measures, measures, paired, reliability_curve
from valueflow.profiles.opinionqa.sides import Sides

# Arms that tell the model what a profile says.
WITH_PROFILE: tuple[Arm, ...] = ("profile", "label + profile", "adaptive", "shuffled profile", "population profile")
# What each arm is compared with: what it has beside the other one.
COMPARED: tuple[tuple[Arm, Arm], ...] = (
    ("label", "default"), ("profile", "default"), ("profile", "shuffled profile"), ("profile", "population profile"),
    ("profile", "irrelevant text"), ("label + profile", "label"), ("adaptive", "default"), ("adaptive", "profile"),
)  # fmt: skip


class Told(NamedTuple):
    """What arms tell of groups: the profile of each and of the population as text, and the group whose profile another gets."""

    profiles: Mapping[str, str]
    other: Mapping[str, str]


def prompt(arm: Arm, item: Item, told: Told) -> ChoicePrompt:
    """Return what a model is shown of an item in an arm other than adaptive, which has no prompts of its own."""
    return ChoicePrompt(preamble(arm, item, told.profiles, told.other), item.wording, item.options)


def put_arms(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms whose prompts are put: default too, from which contrasts are taken; adaptive chooses among them."""
    needed: list[Arm] = ["default"]
    needed += ["profile"] if "adaptive" in arms else []
    needed += [arm for arm in arms if arm != "adaptive"]
    return list(dict.fromkeys(needed))


class ArmAnswers(NamedTuple):
    """The answers of an arm to items: predictions, None where no order was read; whether both orders agree, where both were."""

    predicted: list[np.ndarray | None]
    consistent: list[bool]
    unread: int


def arm_answers(arm: Arm, items: Sequence[Item], told: Told, answered: Mapping[str, Answered]) -> ArmAnswers:
    """Return the answers to the prompts of an arm."""
    found = [answered[prompt(arm, item, told).prompt_id] for item in items]
    return ArmAnswers(
        [answer.share_O for answer in found], [bool(a.consistent) for a in found if a.consistent is not None],
        sum(answer.unread for answer in found),
    )  # fmt: skip


def adaptive(relevance_N: np.ndarray, threshold: float, profile: ArmAnswers, default: ArmAnswers) -> ArmAnswers:
    """Return the answers with the profile where the question concerns a value, without it where not."""
    with_profile = relevance_N >= threshold
    chosen = [p if told else d for told, p, d in zip(with_profile, profile.predicted, default.predicted, strict=True)]
    return ArmAnswers(chosen, [], sum(2 for answer in chosen if answer is None))


def tuned_threshold(
    items: Sequence[Item], relevance_N: np.ndarray, profile: ArmAnswers, default: ArmAnswers
) -> float:  # fmt: skip
    """Return the relevance from which a profile raises the expected agreement most, on items of the validation side.

    The thresholds that are tried are the quantiles of the relevance, 0 (always) and above 1 (never); of equal ones the first.

    Raises:
        InputError: there is no validation item.
    """
    if not len(items):
        raise InputError("arms: adaptive tunes its threshold on items of the validation side, and there is none; leave it out")
    tried = np.unique([0.0, *np.quantile(relevance_N, np.linspace(0.1, 0.9, 9)), 1.01])
    scores = [agreement(items, adaptive(relevance_N, t, profile, default).predicted).mean() for t in tried]
    return float(tried[int(np.argmax(scores))])


def agreement(items: Sequence[Item], predictions: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return for each item the share of the group that chose the predicted option; 0 without a prediction (N,)."""
    return np.array(
        [0.0 if p is None else item.gold[int(p.argmax())] for item, p in zip(items, predictions, strict=True)]
    )  # fmt: skip


def measure_row(name: str, of: Measures, default_jsd: float | None, **more: object) -> Row:
    """Return a row of the table of measures."""
    row: Row = {"arm": name}
    for column in ("accuracy", "agreement", "jsd", "contrast"):
        number = getattr(of, column)
        row |= {column: number.estimate, f"{column}_low": number.low, f"{column}_high": number.high}
    skill = 1 - of.jsd.estimate / default_jsd if default_jsd else None
    return row | {
        "clear_accuracy": of.clear_accuracy, "ceiling": of.ceiling, "skill": skill, "distance": of.distance,
        "brier": of.brier, "macro": of.macro, "worst_group": of.worst[0], "worst_accuracy": of.worst[1],
        "unread": of.unread, **more,
    }  # fmt: skip


def baseline_rows(test: Sequence[Item], sides: Sides, seed: int) -> list[Row]:
    """Return the measures of the baselines on items of the test side."""
    flat = uniform(test)
    rows = []
    for name, of in predicted(test, sides.clean("profile")).items():
        found = measures(test, of, flat, sides.battery_of, seed)
        rows.append(measure_row(name, guessed(found, test) if name == "uniform" else found, None))
    return rows


def arm_rows(
    answers: Mapping[str, ArmAnswers], test: Sequence[Item], sides: Sides, seed: int
) -> list[Row]:  # fmt: skip
    """Return the measures of each arm on clean items, and its accuracy on all items of the test side that were put.

    Args:
        answers: of each arm to `test`; default is there.
        test: items of the test side, damaged ones too.
        sides: the file.
        seed: of the draws of batteries.
    """
    items, default = _clean(sides, test, answers["default"].predicted)
    without = [u if p is None else p for p, u in zip(default, uniform(items), strict=True)]
    found = {}
    for arm, of in answers.items():
        found[arm] = measures(items, _clean(sides, test, of.predicted)[1], without, sides.battery_of, seed)
    rows = []
    for arm, of in answers.items():
        right = [p is not None and int(p.argmax()) == item.mode for item, p in zip(test, of.predicted, strict=True)]
        consistent = float(np.mean(of.consistent)) if of.consistent else float("nan")
        rows.append(measure_row(
            arm, found[arm], found["default"].jsd.estimate, all_items=float(np.mean(right)), consistent=consistent,
            unread_replies=of.unread,
        ))  # fmt: skip
    return rows


def difference_rows(answers: Mapping[str, ArmAnswers], test: Sequence[Item], sides: Sides, seed: int) -> list[Row]:
    """Return the mean differences in expected agreement of arms on the same clean items, with tests over batteries.

    An interval holds for one difference; p values are corrected by Holm over the rows.
    """
    rows: list[Row] = []
    for first, second in COMPARED:
        if first in answers and second in answers:
            x_N, y_N = (agreement(*_clean(sides, test, answers[arm].predicted)) for arm in (first, second))
            of = paired(x_N, y_N, sides.without_damage(test), sides.battery_of, seed)
            row: Row = {"first": first, "second": second, "difference": of.estimate, "low": of.low, "high": of.high, "p": of.p}
            rows.append(row)
    for row, corrected in zip(rows, holm(np.array([row["p"] for row in rows])), strict=True):
        row["holm_p"] = float(corrected)
    return rows


def calibration_rows(answers: Mapping[str, ArmAnswers], test: Sequence[Item], sides: Sides) -> list[Row]:
    """Return the curve of each arm on clean items: by bin of predicted probability, the mean share of such options."""
    rows: list[Row] = []
    for arm, of in answers.items():
        read = [(item, p) for item, p in zip(*_clean(sides, test, of.predicted), strict=True) if p is not None]
        for predicted_share, share, number in reliability_curve(*zip(*read, strict=True)) if read else []:
            rows.append({"arm": arm, "predicted": predicted_share, "share": share, "options": number})
    return rows


def _clean(
    sides: Sides, test: Sequence[Item], predictions: Sequence[np.ndarray | None]
) -> tuple[list[Item], list[np.ndarray | None]]:
    """The items without damage and their predictions."""
    damaged = sides.items.damaged
    return sides.without_damage(test), [p for i, p in zip(test, predictions, strict=True) if i.question_id not in damaged]
