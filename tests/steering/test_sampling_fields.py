"""The sampling fields that a server takes: found by one short call, sent always, and told where they are refused."""

import pytest
from fakes.sampling_server import start

from valueflow.errors import InputError
from valueflow.llm.configs import EndpointModel, Sampling
from valueflow.steering.model_checks import refused_fields

SAMPLING = Sampling(temperature=1.0, top_p=1.0)


def model(url: str) -> EndpointModel:
    return EndpointModel(name="e", model="m", url=url, key_env="", retries=0)


def test_a_server_that_fills_what_is_unset_gets_every_field(tmp_path, caplog):
    with start() as stub:
        assert refused_fields(model(stub.url), SAMPLING, str(tmp_path), False) == {}
    assert stub.sampled == [{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}], (
        "none of its own defaults, such as top_p 0.8, was used"
    )
    assert not caplog.records


def test_a_field_that_a_server_refuses_is_a_warning_because_the_server_fills_it(tmp_path, caplog):
    with start(refuses=("top_p", "top_k")) as stub:
        refused = refused_fields(model(stub.url), SAMPLING, str(tmp_path), False)
        assert refused_fields(model(stub.url), SAMPLING, str(tmp_path), False) == refused
    assert set(refused) == {"top_p", "top_k"}
    assert "Unrecognized" in refused["top_p"]
    assert "does not take top_p" in caplog.text
    assert stub.sampled[0]["top_p"] == 0.8, "the trap is there: the server fills it"
    assert len(stub.sampled) == 1, "the paid call is in the cache"


def test_a_server_without_system_turns_is_refused_only_where_they_are_needed(tmp_path):
    with start(system=False) as stub:
        assert refused_fields(model(stub.url), SAMPLING, str(tmp_path), False) == {}
        with pytest.raises(InputError, match=r"takes no system turn.*user_turn_only"):
            refused_fields(model(stub.url), SAMPLING, str(tmp_path), True)


def test_a_server_that_refuses_everything_is_an_error(tmp_path):
    with start(refuses=("messages",)) as stub, pytest.raises(InputError, match="refuses every call"):
        refused_fields(model(stub.url), SAMPLING, str(tmp_path), False)
