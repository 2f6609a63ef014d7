"""What the manifest of each table records of its build beside the files: settings and counts, as one typed record per table.

A manifest has two JSON objects, `config` and `counts`. A record's fields in `COUNTS` are saved in `counts`, the others in
`config`. A field named in `REST_OF_CONFIG` or `REST_OF_COUNTS` is a mapping whose entries stand directly in that object.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

TRUNCATED = "texts longer than max_chars of the LLM, of which it read the beginning"


class Details(BaseModel):
    """Base of the records. Only fields that were set are saved; keys that no field knows are ignored when read."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    COUNTS: ClassVar[tuple[str, ...]] = ()
    REST_OF_CONFIG: ClassVar[str] = ""
    REST_OF_COUNTS: ClassVar[str] = ""

    @classmethod
    def read(cls, config: dict[str, Any], counts: dict[str, Any]) -> Self:
        """Return the record of saved `config` and `counts`.

        Raises:
            pydantic.ValidationError: a field has another type.
        """
        values: dict[str, Any] = {}
        for saved, rest, names in (
            (config, cls.REST_OF_CONFIG, [n for n in cls.model_fields if n not in cls.COUNTS]),
            (counts, cls.REST_OF_COUNTS, [n for n in cls.model_fields if n in cls.COUNTS]),
        ):
            keys = {cls.model_fields[name].alias or name: name for name in names if name != rest}
            values |= {name: saved[key] for key, name in keys.items() if key in saved}
            if rest:
                values[rest] = {key: value for key, value in saved.items() if key not in keys}
        return cls(**values)

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return `config` and `counts` as a manifest saves them."""
        config: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        values = self.model_dump(exclude_unset=True)
        for name, value in values.items():
            target = counts if name in self.COUNTS else config
            if name in (self.REST_OF_CONFIG, self.REST_OF_COUNTS):
                target.update(value)
            else:
                target[type(self).model_fields[name].alias or name] = value
        return config, counts


class IngestDetails(Details):
    """Of `texts`, `source_labels` and `rejected`."""

    COUNTS = ("texts", "duplicates", "labels", "rejected", "reasons")
    REST_OF_COUNTS = "reasons"

    corpora: list[dict[str, Any]] = []
    texts: int = 0
    duplicates: int = 0
    labels: int = 0
    rejected: int = 0
    reasons: dict[str, int] = Field({}, description="rejected rows by common reason, keys `rejected: …`")


class CandidatesDetails(Details):
    """Of `candidates`: the settings of the selection, texts by value."""

    COUNTS = ("sizes",)
    REST_OF_CONFIG, REST_OF_COUNTS = "settings", "sizes"

    settings: dict[str, Any] = {}
    sizes: dict[str, int] = {}


class WindowsDetails(Details):
    """Of `windows`: the settings of the plan; in adaptive plans what each round reached, by value."""

    COUNTS = ("windows", "progress")
    REST_OF_CONFIG = "settings"

    settings: dict[str, Any] = {}
    windows: int = 0
    progress: dict[str, list[Any]] = {}


class RankingsDetails(Details):
    """Of `rankings`: who ranked, admitted how, and what it took; of an evaluation also what was evaluated."""

    COUNTS = ("windows", "errors", "tokens_in", "tokens_out", "truncated")
    REST_OF_CONFIG = "judge"

    judge: dict[str, Any] = Field({}, description="public settings of the judge")
    fingerprint: str = ""
    audit: str = ""
    seconds: float = Field(0.0, description="of an audit: time that the judge took; 0 where it was resumed")
    vidb_version: str = ""
    responses: str = ""
    values: list[str] = []
    chunk: int = 0
    pairs: str = Field("all", description="of an evaluation: EvaluateConfig.pairs")
    evaluator: dict[str, Any] | None = Field(None, description="of an evaluation: EvaluatorConfig")
    relevance_source: Literal["none", "apart", "in orders"] = Field(
        "none", description="of an evaluation: judging.kind.Relevance"
    )
    timeline: list[list[float]] = Field(
        [], description="while answers came: seconds of work, nodes, workers, answers (`Sample`)"
    )
    windows: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    truncated: int = Field(0, description=TRUNCATED)


class JudgeEffects(BaseModel):
    """A judge as the fit of one value saw it."""

    model_config = ConfigDict(frozen=True)

    name: str
    sharpness: float = Field(description="beta, nats per unit of theta")
    sharpness_error: float = Field(description="standard error")
    places: list[float] = Field(description="position bias by position, nats")
    places_error: list[float] = Field(description="standard errors")
    uninformative: bool


class FitSummary(BaseModel):
    """One value's Plackett-Luce fit as numbers."""

    model_config = ConfigDict(frozen=True)

    value: str
    iterations: int
    gradient_norm: float
    tolerance: float
    num_components: int
    prior_sd: float
    log_likelihood: float
    num_windows: int
    num_shards: int
    judges: list[JudgeEffects]
    checks: dict[str, Any]
    content_share: float | None = Field(
        None, description="of several judges: share of their content errors in the variance of theta, from their disagreement"
    )


class UtilitiesDetails(Details):
    """Of `utilities`: the settings of the fit, the version that it extends, and each value's fit."""

    COUNTS = ("fits",)
    REST_OF_CONFIG, REST_OF_COUNTS = "settings", "fits"

    settings: dict[str, Any] = {}
    extends: str = ""
    fits: dict[str, FitSummary] = {}


class JudgeSharpness(BaseModel):
    """A judge of a version that several judges built: its sharpness by value."""

    model_config = ConfigDict(frozen=True)

    name: str
    sharpness: dict[str, float]


class VidbDetails(Details):
    """Of `vidb`: how a version was built or from which files it was imported."""

    COUNTS = (
        "licenses", "flagged", "rated_by_humans", "filtered_release", "unmatched_ratings", "texts", "duplicates", "empty",
        "truncated",
    )  # fmt: skip

    resolved: dict[str, Any] = Field({}, description="BuildVidbConfig; empty for an imported version")
    judge: str = Field("", description="names of the judges")
    judge_fingerprint: str = ""
    judge_audit: str = ""
    judges: dict[str, JudgeSharpness] = Field({}, description="by fingerprint, where judges were modelled")
    builds: dict[str, str] = Field({}, description="build ids by stage")
    extends: str = ""
    pending: int = Field(0, description="values that were still being judged when the version was published early")
    imported: list[str] = Field([], description="files of an imported version")
    calibrations: dict[str, dict[str, Any]] = {}
    content_errors: dict[str, dict[str, Any]] = Field({}, description="by value: ranking.content_error.ContentError")
    licenses: dict[str, int] = Field({}, description="rows by licence")
    flagged: int = 0
    rated_by_humans: int = Field(0, alias="rated by humans")
    filtered_release: int = Field(0, alias="filtered release")
    unmatched_ratings: int = Field(0, alias="ratings of no text", description="human ratings of texts that are not candidates")
    texts: int = Field(0, description="of an import: rows")
    duplicates: int = 0
    empty: int = 0
    truncated: int = Field(0, description=TRUNCATED)


class ResponsesDetails(Details):
    """Of `responses`."""

    COUNTS = ("responses", "unreadable")

    path: str = ""
    responses: int = 0
    unreadable: int = 0


class EvaluationsDetails(Details):
    """Of `evaluations`: against which version, with which sharpness by value, and what the windows took."""

    COUNTS = ("windows", "errors", "tokens_in", "tokens_out", "truncated")

    resolved: dict[str, Any] = Field({}, description="EvaluateConfig")
    sharpness: dict[str, float] = {}
    content_errors: dict[str, dict[str, Any]] = Field({}, description="by value: ranking.content_error.ContentError")
    vidb_version: str = ""
    audit: str = "not audited"
    windows: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    truncated: int = Field(0, description=TRUNCATED)


class BallotsDetails(Details):
    """Of `ballots`."""

    REST_OF_CONFIG = "settings"

    settings: dict[str, Any] = {}


class VotesDetails(Details):
    """Of `votes`: who voted, admitted how, and what it took."""

    COUNTS = ("questions", "errors", "tokens_in", "tokens_out", "truncated")
    REST_OF_CONFIG = "voter"

    voter: dict[str, Any] = Field({}, description="public settings of the voter")
    fingerprint: str = ""
    audit: str = "not audited"
    questions: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    truncated: int = Field(0, description=TRUNCATED)


class LabelsDetails(Details):
    """Of `labels`: the job, the builds of votes by voter, labels by decision."""

    COUNTS = ("ballots", "queued", "decisions")
    REST_OF_COUNTS = "decisions"

    resolved: dict[str, Any] = Field({}, description="CategorizeConfig")
    votes: dict[str, str] = {}
    ballots: int = 0
    queued: int = 0
    decisions: dict[str, int] = {}


class QueueDetails(Details):
    """Of `queue`: texts that wait for people."""

    COUNTS = ("texts",)

    texts: int = 0


class EmbeddingsDetails(Details):
    """Of `embeddings`."""

    COUNTS = ("texts", "dimension")
    REST_OF_CONFIG = "settings"

    settings: dict[str, Any] = {}
    texts: int = 0
    dimension: int = 0


class AnchorsDetails(Details):
    """Of `anchors` and `anchored`, the concept anchors and the texts at them."""

    COUNTS = ("texts", "anchors", "anchored", "dropped", "balance")
    REST_OF_CONFIG = "settings"

    settings: dict[str, Any] = Field({}, description="AnchorsConfig")
    named: dict[str, Any] | None = Field(None, description="public settings of the namer")
    texts: int = 0
    anchors: int = 0
    anchored: int = 0
    dropped: dict[str, int] = {}
    balance: dict[str, Any] = {}


class IndividualsDetails(Details):
    """Of `individuals`."""

    COUNTS = ("instances",)

    min_similarity: float = 0.0
    instances: int = 0


class NamesDetails(Details):
    """Of `names`: who named concept anchors and what it took."""

    COUNTS = ("questions", "errors", "tokens_in", "tokens_out", "truncated")
    REST_OF_CONFIG = "namer"

    namer: dict[str, Any] = Field({}, description="public settings of the LLM")
    questions: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    truncated: int = Field(0, description=TRUNCATED)


class ExtractedDetails(Details):
    """Of `extracted`."""

    COUNTS = ("texts", "labelled_texts")
    REST_OF_CONFIG = "settings"

    settings: dict[str, Any] = {}
    texts: int = 0
    labelled_texts: int = Field(0, alias="labelled texts")


class HivesDetails(Details):
    """Of `hives`, a trained encoder: the job, the hash of its data, and the encoder that stage 2 began with."""

    COUNTS = ("data",)
    REST_OF_COUNTS = "data"

    resolved: dict[str, Any] = Field({}, description="TrainHivesConfig")
    data_id: str = ""
    start: str = ""
    data: dict[str, Any] = Field({}, description="texts, labels and what was left out")


class RegressionDetails(Details):
    """Of `fast`, the regressions of a version on an encoder's embedding."""

    COUNTS = ("values",)

    model: str = ""
    probe: str = ""
    agreement: list[dict[str, Any]] = []
    values: int = 0
