"""Fingerprints of judges and voters: hashes of all that can change their answers."""

from valueflow.judging.configs import AnyJudge
from valueflow.judging.kinds import kind_of
from valueflow.llm import configs as llm
from valueflow.records import digest

# Settings that change how a judge is called or how fast it answers, but no answer.
RESOURCES = llm.RESOURCES | {"num_actors", "max_actors", "num_gpus", "seconds_per_batch", "deadly_share"}


def fingerprint(judge: AnyJudge) -> str:
    """Return the hash of all that can change this judge's orders of windows."""
    return digest(judge.model_dump(exclude=RESOURCES), kind_of(judge).ranking_knowledge(judge))


def voter_fingerprint(judge: AnyJudge) -> str:
    """Return the hash of all that can change this judge's votes."""
    return digest(judge.model_dump(exclude=RESOURCES), kind_of(judge).voting_knowledge(judge))
