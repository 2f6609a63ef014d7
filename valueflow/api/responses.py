"""Response bodies, the lines of a stream, and errors."""

from typing import Literal

from pydantic import BaseModel, Field

from valueflow.api.requests import MAX_M, MAX_VALUES, Mode, Sampling

Band = Literal["very low", "low", "neutral", "high", "very high"]


class Provenance(BaseModel):
    """What the scores of a response were computed with."""

    request_id: str
    vidb_version: str
    judge: str = Field(description="name of the judge; of the encoder in mode fast")
    mode: Mode
    k: int | None = Field(description="null in mode fast, like m, sampling and seed")
    m: int | None
    sampling: Sampling | None
    seed: int | None
    max_chars: int | None = Field(None, description="characters of a text that the judge reads; null: all")
    rests_on: dict[str, str] = Field({}, description="by value: what the error of the judge was estimated from, in words")


class Agreement(BaseModel):
    """Agreement of mode fast with the intensities of the VIDB, on held-out texts."""

    value: str
    texts: int = Field(description="held-out texts of the value")
    spearman: float | None = Field(description="rank correlation with the VIDB's intensity; null if undefined (no variation)")
    mean_absolute_error: float = Field(description="points of intensity")
    coverage: float = Field(description="share of the held-out texts whose VIDB intensity lies in their 95 % interval")
    width: float = Field(description="mean width of the 95 % intervals of the held-out texts, points of intensity")


class Scored(BaseModel):
    """The intensity of one value in one text."""

    index: int = Field(description="index of the text in the request, from 0")
    value: str
    intensity: float | None = Field(description="where people would put the text; null if no window has a valid answer")
    low: float | None = Field(description="95 % interval of people's intensity: content, sampling and scale error together")
    high: float | None
    judge_intensity: float | None = Field(None, description="where the judge puts the text")
    judge_low: float | None = Field(None, description="95 % interval of the judge's own intensity")
    judge_high: float | None = None
    relevance: float | None = Field(
        None,
        description="how far the text concerns the value, 0 to 1; null if the judge does not say, and in mode fast",
    )
    num_windows: int = Field(description="windows with a valid answer; 0 in mode fast")
    num_failed: int = Field(description="windows without a valid answer")
    error: str | None = Field(None, description="reason for a missing intensity or relevance, or for failed windows")
    truncated: bool = Field(False, description="the text is longer than `max_chars`: the judge read its beginning only")


class ScoreResponse(Provenance):
    """Scores in the order of the texts, and of the values within a text."""

    scores: list[Scored]
    agreement: list[Agreement] | None = Field(None, description="mode fast only")


class StreamStart(Provenance):
    """First line of a stream."""

    type: Literal["start"] = "start"
    num_scores: int = Field(description="number of score lines in a complete stream")
    agreement: list[Agreement] | None = Field(None, description="mode fast only")


class StreamScore(Scored):
    """One score of a stream; lines are ordered by text, the values of a text together."""

    type: Literal["score"] = "score"


class StreamEnd(BaseModel):
    """Last line of a stream; a stream without it is incomplete."""

    type: Literal["end"] = "end"
    num_scores: int
    problem: "Problem | None" = Field(None, description="reason for an early end")


class Compared(BaseModel):
    """Comparison of two texts on one value."""

    value: str
    probability: float | None = Field(
        description="probability that the first intensity is higher; null if either text has no score"
    )
    first: Scored
    second: Scored


class CompareResponse(Provenance):
    """One comparison per value."""

    comparisons: list[Compared]


class Profiled(BaseModel):
    """Mean intensity of a value over the texts of a person or group that concern it."""

    value: str
    intensity: float | None
    low: float | None = Field(description="95 % interval of the mean: spread of the texts and uncertainty of the scores")
    high: float | None
    unit: str = Field("", description="the person, group or model; empty where the request names none")
    standard_error: float | None = Field(None, description="of the mean, from the sample of texts; null for a single text")
    centred: float | None = Field(
        None,
        description="intensity divided by the standard deviation of the value in the VIDB, less the mean of these over the "
        "values of the theory (MRAT): the relative importance of the value for this unit",
    )
    centred_low: float | None = Field(None, description="95 % interval of `centred`")
    centred_high: float | None = None
    num_texts: int = Field(description="texts that count")
    num_left_out: int = Field(0, description="texts with a score of less relevance than `min_relevance`, which do not count")
    band: Band | None
    error: str | None = Field(None, description="reason of the first text without a score")


class UnitSummary(BaseModel):
    """What holds for the whole profile of a unit."""

    unit: str
    num_texts: int
    reliability: float | None = Field(
        description="split-half reliability of the profile over its values (Spearman-Brown); null below 4 values with 2 halves"
    )
    mean_rating: dict[str, float] = Field(description="MRAT by theory, in standard deviations of the VIDB")
    peak: str | None = Field(None, description="value of svt at the peak of the wave that fits the centred profile best")
    wave_r2: float | None = Field(None, description="how well the wave fits, 0 to 1")


class Diverged(BaseModel):
    """The difference of two units on one value: the first less the second."""

    value: str
    first: str
    second: str
    difference: float | None = Field(description="points of intensity; null where either unit has none")
    low: float | None = Field(description="95 % interval, simultaneous over the values of the pair")
    high: float | None
    p: float | None = Field(description="two-sided p value, corrected by Holm over all values and pairs")


class ProfileResponse(Provenance):
    """Value profile of a person or group, or of several, unit by unit."""

    profile: list[Profiled]
    units: list[UnitSummary] = []
    divergence: list[Diverged] = Field([], description="of every two of up to 8 units")
    truncated: int = Field(0, description="texts longer than `max_chars`, of which the judge read the beginning only")


class Extracted(BaseModel):
    """A node that a text may express."""

    theory: str
    node: str
    path: list[str] = Field(description="nodes from the root of the theory")
    distance: float = Field(description="1 - cosine to the nearest labelled text of the node")
    direction: Literal[-1, 0, 1] = Field(description="1 supports, -1 opposes, 0 undecided")
    confidence: float = Field(ge=0, le=1, description="share of correct predictions of this kind on the labelled texts")


class ExtractedText(BaseModel):
    """The nodes of one text, best first within a theory."""

    index: int
    nodes: list[Extracted]
    error: str | None = Field(None, description="reason for a text that was not read: it is empty or has control characters")


class ExtractResponse(BaseModel):
    """Extracted nodes of each text."""

    request_id: str
    model: str
    texts: list[ExtractedText]


class NodeInfo(BaseModel):
    """A node of a theory's hierarchy."""

    id: str
    name: str
    definition: str
    parents: list[str]
    scored: bool = Field(description="whether the VIDB has anchors for it")


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
    """Definition of a value, its paths in the theory, and example anchors."""

    id: str
    name: str
    definition: str
    supports: str
    opposes: str
    paths: list[list[str]] = Field(description="every path from the root of the theory to the value")
    scored: bool
    examples: list[Anchor] = Field(description="anchors spread evenly over the value's scale, weakest first")


class SteeringText(BaseModel):
    """One text that tells a model how it stands towards a value."""

    level: int = Field(
        description="-2 opposes the value openly, -1 doubts it, 1 leans towards it, 2 puts it first; 0: a neutral persona"
    )
    variant: int = Field(description="number of the paraphrase")
    named: bool = Field(description="whether the text names the value; the last variant does not")
    text: str


class SteeringResponse(BaseModel):
    """The wording by which a model is steered on a value; nothing is generated."""

    value: str
    name: str = Field(description="the word for the value in its texts")
    wordings: list[SteeringText] = Field(description="by level and variant")
    wording_hash: str = Field(description="changes with any of the wordings of all values")


class Limits(BaseModel):
    """Limits of one request."""

    max_texts: int = Field(description="texts, except in streams")
    max_streamed: int = Field(description="texts of a stream")
    max_chars: int = Field(description="characters per text")
    max_values: int = Field(MAX_VALUES, description="names in `values`")
    max_units: int = Field(description="texts times values, that is, scores; a window of `sharpness` counts as 1/m of one")
    max_m: int = Field(MAX_M, description="windows per text and value")
    max_body_bytes: int


class VidbResponse(BaseModel):
    """The VIDB version in use and the capabilities of the server."""

    version: str
    judge: str
    modes: list[Mode]
    extract: bool = Field(description="whether POST /v1/extract is served")
    values: dict[str, int] = Field(description="number of anchors by value id")
    num_texts: int
    licenses: dict[str, int]
    lineage: list[str] = Field(description="builds that the version was computed from")
    created: str
    valueflow: str = Field(description="ValueFlow version that built it")
    max_chars: int | None = Field(None, description="characters of a text that the judge in use reads; null: all")
    truncated: int = Field(0, description="texts of the version of which its judge read the beginning only")
    relevance: bool = Field(
        False, description="whether each score takes one question beyond its m windows: how far the text concerns the value"
    )
    sharpness: dict[str, int] = Field(
        {},
        description="by value, the windows of anchors that the first request on it takes beyond its own, since the judge did "
        "not build the version; values whose estimate is kept are absent",
    )
    limits: Limits


class Problem(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: str = Field("about:blank", description="a URI that names the kind of problem: urn:valueflow:REASON")
    title: str
    status: int
    detail: str = Field("", description="the error, the offending value, what is allowed, and where to change it")
    request_id: str = ""
    errors: list[dict[str, str]] = Field([], description="validation errors of the request, each with field and message")
