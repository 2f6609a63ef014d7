"""What the manifests of replies of models, of their choices and of profiles record; see `details`."""

from typing import Any

from pydantic import Field

from valueflow.store.details import Details


class GenerationsDetails(Details):
    """Of `generations`, the replies of one model to the plan of a steering job; those of other models have the same `plan`."""

    COUNTS = (
        "generations", "errors", "tokens_in", "tokens_out", "reasoning_tokens", "truncated", "outcomes", "cost",
    )  # fmt: skip

    resolved: dict[str, Any] = Field({}, description="SteerConfig")
    plan: str = Field("", description="hash of queries, conditions, wording and sampling: the same for all models of a job")
    models: dict[str, Any] = Field({}, description="public settings of the model, by its name")
    sampling: dict[str, Any] = Field({}, description="every sampling field as it was sent")
    refused: dict[str, str] = Field({}, description="sampling fields that the server does not take, and what it said")
    wording_hash: str = ""
    prompts: dict[str, str] = Field({}, description="a rendered prompt of each condition, as the model read it")
    export: str = Field("", description="glob of the files that jobs/evaluate reads")
    generations: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    reasoning_tokens: int = 0
    truncated: int = Field(0, description="replies that ended at max_tokens")
    outcomes: dict[str, int] = Field({}, description="replies by outcome: answer, hedge, refusal, broken")
    cost: float = Field(0.0, description="in the currency of the model's price")


class ChoicesDetails(Details):
    """Of `choices`, the answers of one model to questions with options."""

    COUNTS = ("questions", "errors", "unread", "tokens_in", "tokens_out")

    models: dict[str, Any] = Field({}, description="public settings of the model, by its name")
    fingerprint: str = ""
    readings: list[str] = []
    questions: int = 0
    errors: int = 0
    unread: int = Field(0, description="replies that name no option")
    tokens_in: int = 0
    tokens_out: int = 0


class UnitTextsDetails(Details):
    """Of `unit_texts`: the texts of persons, groups or models."""

    COUNTS = ("texts", "units", "unreadable")

    path: str = ""
    texts: int = 0
    units: int = 0
    unreadable: int = 0


class ProfilesDetails(Details):
    """Of `profiles`: how texts were scored, what numbers were divided by, and what holds for all units together."""

    COUNTS = ("units", "reused", "reliability")

    resolved: dict[str, Any] = Field({}, description="BuildProfileConfig")
    basis: str = Field("", description="hash of everything but the texts that can change a profile")
    vidb_version: str = ""
    unit_texts: str = ""
    scored_by: str = Field("", description="the encoder of mode fast, or the evaluation")
    content_errors: dict[str, dict[str, Any]] = Field({}, description="by value: ranking.content_error.ContentError")
    scale: dict[str, float] = Field({}, description="standard deviation of each value in the version, points")
    units: int = 0
    reused: int = Field(0, description="units whose profile an earlier build had")
    reliability: dict[str, float | None] = Field({}, description="split-half reliability over units, by value")
