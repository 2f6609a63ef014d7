"""Fingerprints of judges and voters: hashes of all that can change their answers."""

from valueflow.judging import encoder
from valueflow.judging.configs import AnyJudge
from valueflow.prompts.render import prompt_hash
from valueflow.records import digest
from valueflow.theories import operational, theories

# Settings that change how a judge is called or how fast it answers, not what.
RESOURCES = {
    "name",
    "batch_size",
    "num_actors",
    "num_cpus",
    "num_gpus",
    "num_engines",
    "cpus_per_engine",
    "gpus_per_engine",
    "env",
    "cache",
    "price",
    "budget",
    "key_env",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "retries",
    "patience",
    "url",
}


def fingerprint(judge: AnyJudge) -> str:
    """Return the hash of everything that can change this judge's orders of windows."""
    knowledge = "" if judge.kind == "simulated" else _exemplars_hash() if judge.kind == "encoder" else _question_hash()
    return digest(_settings(judge), knowledge)


def voter_fingerprint(judge: AnyJudge) -> str:
    """Return the hash of everything that can change this judge's votes."""
    encoder_knowledge = [_exemplars_hash(), encoder.CONCERNED, encoder.SIDED, encoder.FULL, encoder.WEIRD]
    knowledge = judge.name if judge.kind == "simulated" else encoder_knowledge if judge.kind == "encoder" else _ballots_hash()
    return digest(_settings(judge), knowledge)


def _settings(judge: AnyJudge) -> dict:
    return judge.model_dump(exclude=RESOURCES | {"seconds_per_batch"})


def _question_hash() -> str:
    """Hash of all that is put to an LLM beside the texts of a window: the template and what it says of each value."""
    nodes = [theories()[t].node(n) for t, n in (value.split(":") for value in operational())]
    return digest(prompt_hash("rank"), [[n.name, n.definition, n.supports, n.opposes] for n in nodes])


def _ballots_hash() -> str:
    """Hash of all that is put to an LLM beside the text of a ballot."""
    prompts = [prompt_hash(kind) for kind in ("child", "direction", "plausible", "rating")]
    return digest(prompts, [[n.id, n.name, n.definition] for t in theories().values() for n in t.nodes])


def _exemplars_hash() -> str:
    settings = [encoder.RIDGE, encoder.SHARED, encoder.ALIKE, encoder.SAME, encoder.TRUST]
    return digest(settings, [list(row.values()) for row in encoder.exemplars()])
