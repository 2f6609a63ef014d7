"""All kinds of judges by `kind` of their settings.

To add a kind: write its settings into the union in `judging.configs`, its workers and its `JudgeKind` into one file beside
`simulated.py`, and its entry here. A kind of LLM also needs an entry in `distributed.judge.LLM_RUNNERS`.
"""

from valueflow.judging.configs import AnyJudge
from valueflow.judging.encoder import ENCODER
from valueflow.judging.kind import JudgeKind
from valueflow.judging.llm_judge import ENDPOINT, VLLM
from valueflow.judging.simulated import SIMULATED

KINDS: dict[str, JudgeKind] = {"encoder": ENCODER, "simulated": SIMULATED, "vllm": VLLM, "openai": ENDPOINT}


def kind_of(judge: AnyJudge) -> JudgeKind:
    """Return the kind of a judge."""
    return KINDS[judge.kind]


def true_correlation(judges: list[AnyJudge]) -> float | None:
    """Return the correlation of the truth with the judges' common axis, where it is known: for simulated judges."""
    kinds = {judge.kind for judge in judges}
    kind = kind_of(judges[0])
    return kind.correlation(judges) if len(kinds) == 1 and kind.correlation else None
