"""Do raters agree, is one of them careless, and do the judges agree with them."""

import itertools
from collections import Counter, defaultdict
from typing import NamedTuple

import krippendorff
import numpy as np

from valueflow.people.answers import Answer
from valueflow.people.tasks import RANDOM, Task

# When a rater's numbers are worth a look. They are not tests: people who differ may be right.
MIN_SHARED, LOW_CORRELATION, LARGE_OFFSET, MANY_EQUAL, MIN_RATINGS, FEW_SECONDS = 10, 0.3, 3.0, 0.6, 10, 2.0


class ValueAgreement(NamedTuple):
    """Agreement on the texts of one value, or of all ("all")."""

    value: str
    num_texts: int
    num_ratings: int
    num_shared: int  # texts with at least two ratings
    alpha: float  # Krippendorff's, interval; nan without two ratings of a text, or if all ratings are equal


class RaterCheck(NamedTuple):
    """One rater beside the others; nan where nothing is shared."""

    rater: str
    num_ratings: int
    num_open: int  # rating tasks of the export that the rater has not rated
    num_shared: int  # rated by others too
    correlation: float  # with the mean of the others
    offset: float  # mean difference from the mean of the others
    spread: float  # standard deviation of the ratings
    equal_share: float  # of the most frequent rating
    longest_run: int  # of equal ratings in the order of the file
    seconds: float  # median per rating, where the tool says
    notes: list[str]


class JudgeCheck(NamedTuple):
    """The judges' intensities beside the mean ratings of texts that were drawn at random; nan without them."""

    num_texts: int
    correlation: float
    rmse: float
    rmse_of_zero: float  # of the answer 0 for every text
    covered: float  # share of the mean ratings in the judges' 95 % interval


class PairCheck(NamedTuple):
    """Answers to pairwise tasks: how often raters agree with each other and with the judges' intensities."""

    basis: str
    num_answers: int
    num_equal: int
    with_judges: float  # share of the others that prefer the text of the larger intensity; nan without any
    between_raters: float  # share of equal answers over all two answers to one task


def by_value(ratings: list[Answer]) -> list[ValueAgreement]:
    """Return the agreement on all texts and on those of each value."""
    groups: dict[str, list[Answer]] = {"all": ratings}
    for answer in ratings:
        groups.setdefault(answer.task.value, []).append(answer)
    return [_agreement(value, of_value) for value, of_value in groups.items()]


def _agreement(value: str, ratings: list[Answer]) -> ValueAgreement:
    raters = list(dict.fromkeys(answer.rater for answer in ratings))
    tasks = list(dict.fromkeys(answer.task.task_id for answer in ratings))
    rows, places = ({name: n for n, name in enumerate(names)} for names in (raters, tasks))
    rating_RT = np.full((len(raters), len(tasks)), np.nan)
    for answer in ratings:
        rating_RT[rows[answer.rater], places[answer.task.task_id]] = answer.number
    shared_RT = rating_RT[:, np.isfinite(rating_RT).sum(axis=0) > 1]
    varies = shared_RT.size and np.nanmin(shared_RT) < np.nanmax(shared_RT)
    alpha = krippendorff.alpha(reliability_data=shared_RT, level_of_measurement="interval") if varies else np.nan
    return ValueAgreement(value, len(tasks), len(ratings), shared_RT.shape[1], float(alpha))


def rater_checks(ratings: list[Answer], num_tasks: int) -> list[RaterCheck]:
    """Return every rater's checks; `num_tasks` is the number of rating tasks of the export."""
    by_task: dict[str, dict[str, float]] = defaultdict(dict)
    by_rater: dict[str, list[Answer]] = defaultdict(list)
    for answer in ratings:
        by_task[answer.task.task_id][answer.rater] = answer.number
        by_rater[answer.rater].append(answer)
    return [_check(rater, answers, by_task, num_tasks) for rater, answers in sorted(by_rater.items())]


def _check(rater: str, answers: list[Answer], by_task: dict[str, dict[str, float]], num_tasks: int) -> RaterCheck:
    own, others = [], []
    for answer in answers:
        rest = [number for name, number in by_task[answer.task.task_id].items() if name != rater]
        if rest:
            own.append(answer.number)
            others.append(float(np.mean(rest)))
    numbers = [answer.number for answer in answers]
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    correlation = _correlation(np.array(own), np.array(others))
    offset = float(np.mean(np.subtract(own, others))) if own else np.nan
    equal = Counter(numbers).most_common(1)[0][1] / len(numbers)
    run = max(len(list(group)) for _, group in itertools.groupby(numbers))
    median = float(np.median(seconds)) if seconds else np.nan
    notes = [
        *(
            [f"hardly follows the others ({correlation:.2f})"]
            if len(own) >= MIN_SHARED and correlation < LOW_CORRELATION
            else []
        ),
        *([f"rates {offset:+.1f} from the others"] if len(own) >= MIN_SHARED and abs(offset) > LARGE_OFFSET else []),
        *([f"{equal:.0%} of the ratings are equal"] if len(numbers) >= MIN_RATINGS and equal > MANY_EQUAL else []),
        *([f"takes {median:.1f} s for a text"] if median < FEW_SECONDS else []),
    ]
    spread = float(np.std(numbers))
    open_tasks = num_tasks - len(numbers)
    return RaterCheck(rater, len(numbers), open_tasks, len(own), correlation, offset, spread, equal, run, median, notes)


def judge_check(ratings: list[Answer]) -> JudgeCheck:
    """Compare the judges with the mean ratings of the texts that were drawn at random."""
    means: dict[str, tuple[Task, list[float]]] = {}
    for answer in ratings:
        if answer.task.basis == RANDOM and np.isfinite(answer.task.place.intensity):
            means.setdefault(answer.task.task_id, (answer.task, []))[1].append(answer.number)
    rating_N = np.array([np.mean(numbers) for _, numbers in means.values()])
    if not len(rating_N):
        return JudgeCheck(0, np.nan, np.nan, np.nan, np.nan)
    intensity_N, low_N, high_N = np.array([task.place for task, _ in means.values()]).T
    inside = float(((low_N <= rating_N) & (rating_N <= high_N)).mean()) if np.isfinite(low_N).all() else np.nan
    rmse, of_zero = (float(np.sqrt(np.mean(error_N**2))) for error_N in (intensity_N - rating_N, rating_N))
    return JudgeCheck(len(rating_N), _correlation(intensity_N, rating_N), rmse, of_zero, inside)


def pair_checks(pairs: list[Answer]) -> list[PairCheck]:
    """Return the checks of pairwise answers to tasks drawn at random, and of those to all."""
    groups = {RANDOM: [a for a in pairs if a.task.basis == RANDOM], "all": pairs}
    return [_pair_check(basis, answers) for basis, answers in groups.items() if answers]


def _pair_check(basis: str, answers: list[Answer]) -> PairCheck:
    differences = [(a.number, a.task.place.intensity - a.task.other_intensity) for a in answers]
    signs = [
        number * difference > 0 for number, difference in differences if number and difference and difference == difference
    ]
    by_task: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        by_task[answer.task.task_id].append(answer.number)
    equal = [a == b for numbers in by_task.values() for a, b in itertools.combinations(numbers, 2)]
    with_judges, between = (float(np.mean(x)) if x else np.nan for x in (signs, equal))
    return PairCheck(basis, len(answers), sum(a.number == 0 for a in answers), with_judges, between)


def _correlation(a_N: np.ndarray, b_N: np.ndarray) -> float:
    if len(a_N) < 3 or not a_N.std() or not b_N.std():
        return np.nan
    return float(np.corrcoef(a_N, b_N)[0, 1])
