"""Request bodies."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from valueflow import defaults

Mode = Literal["ranked", "fast"]
Sampling = Literal["adaptive", "bucket", "random", "fixed"]
# Upper bounds of the format itself; a server may allow less (limits in GET /v1/vidb).
MAX_TEXTS, MAX_STREAMED, MAX_VALUES, MAX_M = 1000, 100_000, 64, 100
# Lists are validated up to their first fault (`fail_fast`), so that a list of a million faults costs no more than one.
Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Thread = Annotated[str, StringConstraints(max_length=100)]
Values = Annotated[
    list[Name],
    Field(
        min_length=1,
        max_length=MAX_VALUES,
        fail_fast=True,
        description="value ids (svt:benevolence), node names that only one theory has, theories (svt: all its values), or all",
        examples=[["svt:benevolence", "mft"]],
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoringRequest(_Body):
    """Settings shared by all requests that score texts."""

    values: Values = ["all"]
    mode: Mode = Field("ranked", description="ranked: a judge ranks each text among anchors; fast: regression on an embedding")
    k: int = Field(defaults.K, ge=2, le=10, description="texts in a window, the scored one included")
    m: int = Field(defaults.M, ge=1, le=MAX_M, description="windows per text and value")
    sampling: Sampling = Field(defaults.SAMPLING, description="how the anchors of a window are chosen")
    seed: int = Field(
        defaults.SEED, ge=0, le=2**31 - 1, description="the same seed, VIDB version and judge give the same score"
    )


class ScoreRequest(ScoringRequest):
    """Texts to be scored on values."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)


class StreamRequest(ScoringRequest):
    """A long list of texts to be scored on values."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_STREAMED, fail_fast=True)


class CompareRequest(ScoringRequest):
    """Two texts to be compared on values."""

    first: Text
    second: Text


class ProfileRequest(ScoringRequest):
    """The texts of one person or group, or of several."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)
    units: list[Name] | None = Field(
        None,
        max_length=MAX_TEXTS,
        fail_fast=True,
        description="the person, group or model that each text is of, in the order of the texts; null: all are of one",
    )
    threads: list[Thread] | None = Field(
        None,
        max_length=MAX_TEXTS,
        fail_fast=True,
        description="what the texts of a unit belong to (a thread, an author): these depend on each other; '' or null: nothing",
    )
    min_texts: int = Field(
        defaults.MIN_TEXTS, ge=1, le=MAX_TEXTS, description="a value with fewer texts that count has no intensity"
    )
    min_relevance: float = Field(
        defaults.MIN_RELEVANCE,
        ge=0,
        le=1,
        description="texts of less relevance for a value do not count in its mean; 0: all do",
    )

    @model_validator(mode="after")
    def _one_per_text(self) -> Self:
        for name in ("units", "threads"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != len(self.texts):
                raise ValueError(f"{name} has {len(entries)} entries for {len(self.texts)} texts; give one for each text")
        return self


class ExtractRequest(_Body):
    """Texts from which to extract the values they express."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)
    theories: list[Name] | None = Field(None, max_length=16, fail_fast=True, description="null: all")
    top: int = Field(3, ge=1, le=20, description="maximum number of nodes per theory")


def message_of(error: Mapping[str, Any]) -> str:
    """Return a validation error of a request in words; of a list that is too long, with its length and limit."""
    name, context = str(error["loc"][-1]), error.get("ctx", {})
    if error["type"] != "too_long" or name not in ("texts", "values"):
        return str(error["msg"])
    most = context["max_length"]
    limit = "max_streamed" if most == MAX_STREAMED else f"max_{name}"
    return f"there are {context['actual_length']:,} {name}, at most {most:,} in one request ({limit}); send fewer {name}"
