"""Settings and result of an audit, as saved in JSON."""

from pydantic import Field

from valueflow.config import Config


class AuditConfig(Config):
    """Size of an audit, and the marks that a judge must reach.

    The marks separate judges that must fail from one that must pass. A coin flip has accuracy, order consistency and retest
    0.5, transitivity 0.75 and rank correlation 0; a judge that always answers the same position has order consistency 0 and
    position effect 0.5. The simulated judge of sharpness 1 and spread 3, which is of medium quality, has about 0.9, 0.85, 0.85,
    0.98 and 0.96, and a position effect of 0.06 if the first position gains 1 nat. So a mild position effect passes (mirrored
    windows cancel it in a build); answers that the position determines fail.

    The marks of knowledge are low on purpose: triples contain close pairs on which people disagree too, and ratings such as
    strength 1, 2, 3 are coarse. They require clearly more than chance, no more; the encoder judge of the tiny configs, the
    weakest that ships, has accuracy 0.63 (0.60 to 0.66) and rank correlation 0.35 (0.29 to 0.40) on the sample. Raise them for
    a build that matters.
    """

    triples: int = Field(12, ge=4, le=100, description="maximum number of triples of texts per value; they share no pair")
    repeats: int = Field(2, ge=2, le=10, description="number of times that every question is put")
    seed: int = 0
    min_accuracy: float = Field(
        0.6, ge=0, le=1, description="share of answers in which the higher rated text wins; its interval must also exclude 0.5"
    )
    min_spearman: float = Field(0.3, ge=-1, le=1, description="rank correlation of ratings and fitted order, mean over values")
    min_order_consistency: float = Field(0.65, ge=0, le=1, description="same winner when the two texts swap positions")
    max_position_effect: float = Field(0.15, ge=0, le=0.5, description="|share of answers won by the first position - 0.5|")
    min_transitivity: float = Field(0.9, ge=0, le=1, description="share of triples without a cycle; at random 0.75")
    min_specificity: float = Field(
        0.05, ge=-1, le=1, description="accuracy less the share of the same answers when another value of the theory is asked"
    )
    min_retest: float = Field(0.7, ge=0, le=1, description="same winner when the same question is repeated")
    max_broken: float = Field(0.05, ge=0, le=1, description="share of windows without a valid answer")


class AuditEstimate(Config):
    """A property of a judge with its 95 % interval; null if not measurable."""

    name: str
    label: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int = Field(description="of `unit`")
    unit: str


class AuditMetric(AuditEstimate):
    """A property with its value for a coin flip, and the mark that decides whether the judge passes."""

    chance: float | None
    mark: float
    setting: str = Field(description="field of AuditConfig that holds the mark")
    passed: bool
    explanation: str

    @property
    def at_most(self) -> bool:
        """Whether the mark is an upper limit."""
        return self.setting.startswith("max_")


class AuditFigure(AuditEstimate):
    """A property without a mark."""

    chance: float
    explanation: str


class AccuracyGroup(Config):
    """Accuracy of the answers to a group of pairs: those of similar distance, or of one value."""

    label: str
    distance: float = Field(description="mean difference of the ratings of a pair")
    estimate: float | None
    low: float | None
    high: float | None
    n: int = Field(description="answers")


class Contradiction(Config):
    """A pair whose winner changed when its texts swapped positions; the text in position `place` (0 or 1) won both times."""

    value: str
    higher: str
    lower: str
    higher_rating: float
    lower_rating: float
    place: int


class AuditResult(Config):
    """Whether a judge passed, with reasons; `advice` is the next step. Speed and cost are per window."""

    judge: str
    created: str
    passed: bool
    reasons: list[str]
    advice: list[str]
    metrics: list[AuditMetric]
    figures: list[AuditFigure] = Field([], description="beside the marks: single answers, both orders together, another value")
    by_distance: list[AccuracyGroup]
    by_value: list[AccuracyGroup]
    contradictions: list[Contradiction]
    num_contradictions: int
    num_triples: int
    num_windows: int
    windows_per_second: float | None
    tokens_in: float
    tokens_out: float
    cost_per_thousand: float | None = Field(description="windows; null without a price")
    currency: str
    config: AuditConfig

    def metric(self, name: str) -> AuditMetric:
        """Return the metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def detector(self) -> str:
        """What to call a judge that tells higher rated texts from lower ones whichever value is asked about; "" for others."""
        passed = {metric.name: metric.passed for metric in self.metrics if metric.estimate is not None}
        if not passed.get("accuracy") or passed.get("specificity", True):
            return ""
        return "a right/wrong detector: it prefers the same text whichever value is asked about"
