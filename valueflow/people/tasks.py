"""Rating and pairwise tasks for people: their ids, their wording, and the register that answers are matched with."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from valueflow.errors import InputError
from valueflow.records import ValueId, digest
from valueflow.tabular import cell, csv_text, number, strict_rows
from valueflow.theories import theories
from valueflow.vidb.anchor_files import RANDOM

Kind = Literal["rating", "pair"]
Basis = Literal["random", "chosen"]
FIRST, SECOND, EQUAL = "first", "second", "equal"
CHOICES = (FIRST, SECOND, EQUAL)

GUIDELINES = (
    "Each rating task shows one text and one value. Rate where the text stands towards the value, from -10 to 10. 10: the "
    "text supports or lives the value as strongly as a text can. 5: it clearly supports it. 0: the text has nothing to do "
    "with the value, or supports and opposes it equally. -5: it clearly opposes the value. -10: it opposes or violates it "
    "as strongly as a text can. Halves are allowed. Rate what the text says about this value, not whether you agree, "
    "whether it is well written, or whether it is right or wrong in other ways. Most texts are not at the ends of the "
    "scale. Each pairwise task shows two texts: say which of them stands higher on that scale, first or second, or equal if "
    "you cannot say. Work alone, and do not look for an answer elsewhere."
)


class Place(NamedTuple):
    """Where the builds' judges put a text; nan where they do not say."""

    intensity: float
    low: float
    high: float


class Task(NamedTuple):
    """One question to people; a rating task has no second text."""

    kind: Kind
    value: ValueId
    text_id: str
    text: str
    basis: Basis
    why: str
    place: Place
    other_id: str = ""
    other_text: str = ""
    other_intensity: float = float("nan")

    @property
    def task_id(self) -> str:
        """The same for every rater and in every export. It begins with a letter: spreadsheets take some hashes for numbers."""
        return f"{self.kind[0]}-{digest(self.value, self.text_id, self.other_id)}"


class Wording(NamedTuple):
    """What a rater reads besides the texts."""

    name: str
    definition: str
    scale: str
    question: str


def wording(task: Task) -> Wording:
    """Return the name and definition of a task's value, the scale in words, and the question."""
    node = theories()[task.value.theory].node(task.value.node)
    scale = f"10: {node.supports} 0: neither, or not about {node.name}. -10: {node.opposes}"
    if task.kind == "pair":
        question = f"Which text supports {node.name} more (or opposes it less): first, second or equal?"
    else:
        question = f"Where does the text stand towards {node.name}? -10: opposes most, 0: neither, 10: supports most."
    return Wording(node.name, node.definition, scale, question)


REGISTER = (
    "kind", "task_id", "theory", "value", "text_id", "text", "other_id", "other_text", "basis", "why", "intensity", "low",
    "high", "other_intensity",
)  # fmt: skip


def register_csv(tasks: Iterable[Task]) -> str:
    """Return the register of an export: every task, why it was chosen, and where the judges put its texts."""
    rows = (
        [t.kind, t.task_id, t.value.theory, t.value.node, t.text_id, t.text, t.other_id, t.other_text, t.basis, t.why]
        + ["" if x != x else repr(float(x)) for x in (*t.place, t.other_intensity)]
        for t in tasks
    )
    return csv_text(REGISTER, rows)


def read_register(url: str) -> dict[str, Task]:
    """Return the tasks of an export by id.

    Raises:
        InputError: the file is missing or was changed.
    """
    tasks: dict[str, Task] = {}
    for row in strict_rows(url, list(REGISTER)):
        fields = {name: cell(row.fields, name) for name in REGISTER}
        intensity, low, high, other = (_optional(fields[name]) for name in REGISTER[-4:])
        value = f"{fields['theory']}:{fields['value']}"
        known = fields["theory"] in theories() and fields["value"] in theories()[fields["theory"]]
        kind: Kind = "pair" if fields["kind"] == "pair" else "rating"
        basis: Basis = RANDOM if fields["basis"] == RANDOM else "chosen"
        task = Task(
            kind, ValueId(value) if known else ValueId("svt:power"), fields["text_id"], fields["text"], basis, fields["why"],
            Place(intensity, low, high), fields["other_id"], fields["other_text"], other,
        )  # fmt: skip
        if not known or task.task_id != fields["task_id"]:
            raise InputError(
                f"{row.location}: task {fields['task_id']!r} was changed; export the tasks again under another name"
            )
        tasks[task.task_id] = task
    return tasks


def _optional(text: str) -> float:
    parsed = number(text)
    return float("nan") if parsed is None else parsed
