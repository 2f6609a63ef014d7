"""A file of OpinionQA with its split by battery, and the items that are asked of a model."""

from collections.abc import Sequence
from typing import NamedTuple

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.batteries import SIDES, Side, batteries, check_no_leak, split
from valueflow.profiles.opinionqa.items import Item, Items, by_question, read_items
from valueflow.records import digest


class Sides(NamedTuple):
    """The items of a file, the battery of each question, and the side of each question."""

    items: Items
    battery_of: dict[str, str]
    side_of: dict[str, Side]

    def of(self, side: Side) -> list[Item]:
        """Return the items of a side."""
        return [item for item in self.items.items if self.side_of[item.question_id] == side]

    def clean(self, side: Side) -> list[Item]:
        """Return the items of a side whose questions have no damage."""
        return self.without_damage(self.of(side))

    def without_damage(self, items: Sequence[Item]) -> list[Item]:
        """Return the items whose questions have no damage."""
        return [item for item in items if item.question_id not in self.items.damaged]

    def comparable(self, side: Side) -> list[Item]:
        """Return the clean items of a side whose question has several groups, so that groups can be compared."""
        known = {question for question, of in by_question(self.clean(side)).items() if len(of) > 1}
        return [item for item in self.clean(side) if item.question_id in known]


def read_sides(url: str, seed: int = 0) -> Sides:
    """Return the items of a file, split so that near-twins stand on one side.

    Raises:
        InputError: the file is no list of items, the split leaks, or a side has no item.
    """
    found = read_items(url)
    battery_of = batteries(found.items)
    sides = Sides(found, battery_of, split(battery_of, seed))
    check_no_leak(found.items, sides.side_of)
    if lacking := [side for side in SIDES if side != "validation" and not sides.clean(side)]:
        raise InputError(
            f"{url} has {len(set(battery_of.values()))} batteries of near-twin questions, too few for a split: the side "
            f"{lacking[0]} has no item without damage; take another seed or more questions"
        )
    return sides


def whole_questions(items: list[Item], most: int | None, seed: int) -> list[Item]:
    """Return items of questions drawn by lot, each with all its groups, until there are at least `most`; None: all."""
    if most is None or len(items) <= most:
        return items
    chosen: list[Item] = []
    for _, of in sorted(by_question(items).items(), key=lambda entry: digest("asked", seed, entry[0])):
        if len(chosen) >= most:
            break
        chosen += of
    return chosen
