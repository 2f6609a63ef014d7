"""Every kind of judge has one record, and fingerprints of earlier versions hold."""

from typing import get_args

import pytest

from valueflow.config import Resources
from valueflow.errors import InputError
from valueflow.judging import llm_judge
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.judging.fingerprint import fingerprint, voter_fingerprint
from valueflow.judging.kinds import KINDS, kind_of
from valueflow.llm.configs import Budget, EndpointModel, LlmModel, Price, VllmModel

VLLM = VllmModel(
    name="v", model="Qwen/Qwen3-8B", revision="r1", engine={"max_model_len": 4096, "dtype": "bfloat16"}, logprobs=True
)
OPENAI = EndpointModel(name="o", model="gpt-4o-mini", extra={"seed": 7}, extra_tokens=5)
# Judge, fingerprint, and fingerprint as a voter, computed by the code before kinds were records; of the encoder, since its
# head ships with the project; of the simulated judge, since it can have a content error.
FINGERPRINTS = [
    (EncoderJudge(), "6ba7a828d39975a0", "5b1a52d005836ef6"),
    (EncoderJudge(name="e2", bag=3, num_cpus=4), "f18be85624997172", "38bf253a89979624"),
    (SimulatedJudge(name="s", position_effect=[0.5]), "a3ad18a795b7df23", "85f1eee04268ebc6"),
    (VLLM, "ae1bac5bcd778eca", "167a443a03ca893a"),
    (OPENAI, "3d1c313c09d64a8c", "4df3263974e4cf89"),
]


@pytest.mark.parametrize(("judge", "as_ranker", "as_voter"), FINGERPRINTS, ids=lambda x: getattr(x, "name", ""))
def test_fingerprints_of_finished_builds_are_unchanged(judge, as_ranker, as_voter):
    assert (fingerprint(judge), voter_fingerprint(judge)) == (as_ranker, as_voter)


@pytest.mark.parametrize("judge", [VLLM, OPENAI], ids=lambda judge: judge.kind)
def test_template_arguments_change_the_fingerprint(judge):
    changed = judge.model_copy(update={"chat_template_args": {"enable_thinking": False}})
    assert fingerprint(changed) != fingerprint(judge)
    assert voter_fingerprint(changed) != voter_fingerprint(judge)


@pytest.mark.parametrize("judge", [EncoderJudge(), SimulatedJudge(), VLLM, OPENAI], ids=lambda judge: judge.kind)
def test_budget_and_price_change_no_fingerprint_and_are_saved_only_where_they_are_set(judge):
    limited = judge.model_copy(update={"budget": Budget(money=1.0, gpu_hours=2.0), "price": Price(hour=3.0)})
    assert (fingerprint(limited), voter_fingerprint(limited)) == (fingerprint(judge), voter_fingerprint(judge))
    assert limited.public()["budget"]["gpu_hours"] == 2.0
    assert "gpu_hours" not in judge.public().get("budget", {})
    if judge is not OPENAI:  # which had one before
        assert "budget" not in judge.public()


def test_every_kind_of_the_union_has_a_record():
    assert {judge.model_fields["kind"].default for judge in get_args(AnyJudge)} == set(KINDS)
    for judge in get_args(AnyJudge):
        kind = KINDS[judge.model_fields["kind"].default]
        assert issubclass(judge, LlmModel) == (kind.ranker is None) == (kind.voter is None)


def test_a_missing_model_or_key_is_an_error_before_actors_start(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    endpoint = EndpointModel(name="o", model="m", key_env="NO_SUCH_KEY")
    with pytest.raises(InputError, match="NO_SUCH_KEY"):
        kind_of(endpoint).check(endpoint)
    encoder = EncoderJudge(model="/no/such/model")
    with pytest.raises(InputError, match="/no/such/model"):
        kind_of(encoder).check(encoder)
    kind_of(VLLM).check(VLLM)


@pytest.mark.parametrize(
    ("judge", "job", "replica"),
    [
        (EncoderJudge(num_actors=3, num_cpus=2, num_gpus=0.5), (6, 1.5), (2, 0.5)),
        (SimulatedJudge(num_actors=2, num_cpus=0.5), (1, 0), (0.5, 0)),
        (VllmModel(name="v", model="m", num_engines=2, cpus_per_engine=4, gpus_per_engine=1), (10, 2), (4, 1)),
        (EndpointModel(name="o", model="m", num_cpus=0.25), (1.25, 0), (0.25, 0)),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_resources_of_a_job_and_of_a_replica(judge, job, replica):
    assert judge.resources == Resources(*job)
    assert judge.replica_resources == Resources(*replica)


def test_a_changed_prompt_is_another_judge_and_another_batch_size_is_not(monkeypatch):
    judge = VllmModel(name="x", model="m")
    before = fingerprint(judge), voter_fingerprint(judge)
    larger = judge.model_copy(update={"batch_size": 7})
    assert (fingerprint(larger), voter_fingerprint(larger)) == before
    monkeypatch.setattr(llm_judge, "prompt_hash", lambda name: "another")
    assert fingerprint(judge) != before[0]
    assert voter_fingerprint(judge) != before[1]
