"""What goes over the wire, version 1: the bodies of requests and answers, for the server and its clients alike.

Intensities lie in [-10, 10]; low and high bound the central 95 % interval. A value is `theory:node`, as `svt:benevolence`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Mode = Literal["ranked", "fast"]
Sampling = Literal["adaptive", "bucket", "random", "fixed"]
# What one request may hold at the very most; a server may allow less (GET /v1/vidb says how much).
MAX_TEXTS, MAX_STREAMED, MAX_VALUES = 1000, 100_000, 64
Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Values = Annotated[
    list[Name],
    Field(
        min_length=1,
        max_length=MAX_VALUES,
        description="values (svt:benevolence, or a name that only one theory has), theories (svt: all its values), or all",
        examples=[["svt:benevolence", "mft"]],
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Asked(_Body):
    """What every request that scores texts may set."""

    values: Values = ["all"]
    mode: Mode = Field("ranked", description="ranked: a judge ranks each text among anchors; fast: regression on an embedding")
    k: int = Field(6, ge=2, le=10, description="texts in a window, the scored one included")
    m: int = Field(3, ge=1, le=100, description="windows for each text and value")
    sampling: Sampling = Field("adaptive", description="how anchors are chosen")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="same seed, same version, same judge: same score")


class ScoreRequest(_Asked):
    """Texts to be scored on values."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)


class StreamRequest(_Asked):
    """A long list of texts to be scored on values."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_STREAMED)


class CompareRequest(_Asked):
    """Two texts, of which one may express each value more."""

    first: Text
    second: Text


class ProfileRequest(_Asked):
    """The texts of one person or group."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)


class ExtractRequest(_Body):
    """Texts whose values are to be found."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)
    theories: list[Name] | None = Field(None, max_length=16, description="null: all")
    top: int = Field(3, ge=1, le=20, description="at most so many nodes of each theory")


class Made(BaseModel):
    """What made the numbers of an answer."""

    request_id: str
    vidb_version: str
    judge: str = Field(description="name of the judge, or of the encoder in mode fast")
    mode: Mode
    k: int | None = Field(description="null in mode fast, as m, sampling and seed")
    m: int | None
    sampling: Sampling | None
    seed: int | None


class Agreement(BaseModel):
    """How mode fast agrees with the intensities of the VIDB, on texts that its regression has not seen."""

    value: str
    texts: int = Field(description="held-out texts of the value")
    spearman: float | None = Field(description="rank correlation with the VIDB's intensity; null where it cannot be told")
    mean_absolute_error: float = Field(description="points of intensity")
    coverage: float = Field(description="share of the held-out texts that lie in their 95 % interval")
    width: float = Field(description="of the 95 % interval, points of intensity, mean over the held-out texts")


class Scored(BaseModel):
    """The intensity of one value in one text."""

    index: int = Field(description="place of the text in the request, from 0")
    value: str
    intensity: float | None = Field(description="null where no window was answered")
    low: float | None
    high: float | None
    num_windows: int = Field(description="answered windows; 0 in mode fast")
    num_failed: int = Field(description="windows the judge gave no usable order for")
    error: str | None = Field(None, description="why there is no intensity, or why windows failed")


class ScoreResponse(Made):
    """Scores in the order of the texts, and of the values within a text."""

    scores: list[Scored]
    agreement: list[Agreement] | None = Field(None, description="mode fast only")


class StreamStart(Made):
    """First line of a stream."""

    type: Literal["start"] = "start"
    num_scores: int = Field(description="lines of scores that follow, where nothing fails")
    agreement: list[Agreement] | None = Field(None, description="mode fast only")


class StreamScore(Scored):
    """A line of a stream; lines come in the order of the texts, the values of a text together."""

    type: Literal["score"] = "score"


class StreamEnd(BaseModel):
    """Last line of a stream; a stream without it was cut off."""

    type: Literal["end"] = "end"
    num_scores: int
    problem: "Problem | None" = Field(None, description="why it ended early")


class Compared(BaseModel):
    """Which of two texts expresses a value more."""

    value: str
    probability: float | None = Field(description="that the first text's intensity is higher; null where either has no score")
    first: Scored
    second: Scored


class CompareResponse(Made):
    """One comparison for each value."""

    comparisons: list[Compared]


class Profiled(BaseModel):
    """Mean intensity of a value over the texts of a person or group."""

    value: str
    intensity: float | None
    low: float | None = Field(description="95 % interval of the mean: the spread of the texts and the doubt about each")
    high: float | None
    num_texts: int = Field(description="texts with a score")
    band: Literal["very low", "low", "neutral", "high", "very high"] | None


class ProfileResponse(Made):
    """A value profile."""

    profile: list[Profiled]


class Extracted(BaseModel):
    """A node that a text may express."""

    theory: str
    node: str
    path: list[str] = Field(description="from the top of the theory")
    distance: float = Field(description="1 - cosine to the nearest reference text of the node")
    direction: Literal[-1, 0, 1] = Field(description="1 supports, -1 opposes, 0 not told")
    confidence: float = Field(ge=0, le=1, description="how often such a prediction is right about reference texts")


class ExtractedText(BaseModel):
    """The nodes of one text, best first within a theory."""

    index: int
    nodes: list[Extracted]


class ExtractResponse(BaseModel):
    """Nodes of each text."""

    request_id: str
    model: str
    texts: list[ExtractedText]


class NodeInfo(BaseModel):
    """A node of a theory's hierarchy."""

    id: str
    name: str
    definition: str
    parents: list[str]
    scored: bool = Field(description="whether the VIDB holds anchors for it")


class TheoryInfo(BaseModel):
    """A value theory."""

    id: str
    name: str
    nodes: list[NodeInfo]


class TheoriesResponse(BaseModel):
    """All theories."""

    theories: list[TheoryInfo]


class Anchor(BaseModel):
    """A text of the VIDB on a value's scale."""

    text: str
    intensity: float
    low: float | None
    high: float | None
    source: str
    license: str


class AnchorsResponse(BaseModel):
    """Anchors along a value's scale, weakest first."""

    value: str
    vidb_version: str
    total: int = Field(description="anchors of the value in the version")
    anchors: list[Anchor]


class ValueResponse(BaseModel):
    """A value: what it means, where it stands, and examples along its scale."""

    id: str
    name: str
    definition: str
    supports: str
    opposes: str
    paths: list[list[str]] = Field(description="each way from the top of the theory to the value")
    scored: bool
    examples: list[Anchor] = Field(description="anchors spread evenly over the value's scale, weakest first")


class Limits(BaseModel):
    """What the server takes in one request."""

    max_texts: int
    max_streamed: int
    max_chars: int = Field(description="characters of a text")
    max_units: int = Field(description="texts times values")
    max_body_bytes: int


class VidbResponse(BaseModel):
    """The VIDB version in use, and what the server can do with it."""

    version: str
    judge: str
    modes: list[Mode]
    extract: bool = Field(description="whether POST /v1/extract is served")
    values: dict[str, int] = Field(description="anchors of each value")
    num_texts: int
    licenses: dict[str, int]
    lineage: list[str] = Field(description="what the version was made from")
    created: str
    valueflow: str = Field(description="version of the software that made it")
    limits: Limits


class Problem(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: str = Field("about:blank", description="a URI that names the kind of problem: urn:valueflow:REASON")
    title: str
    status: int
    detail: str = Field("", description="what was wrong, the value, what is allowed, where to change it")
    request_id: str = ""
    errors: list[dict[str, str]] = Field([], description="for bodies that do not fit: field and message of each fault")
