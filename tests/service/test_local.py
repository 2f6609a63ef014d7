"""Which judge a service in this process uses: a version that somebody hands over decides nothing that is loaded or called."""

import asyncio
import logging
from pathlib import Path

import pytest
from foreign import HOSTILE, SECRET, foreign_version, hostile_judge, listener

from valueflow import vidb
from valueflow.cli.main import main
from valueflow.client import LocalClient
from valueflow.errors import InputError
from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.llm.configs import EndpointModel
from valueflow.service.local import judge_of

TEXT = "a private text of the user"


@pytest.fixture(params=HOSTILE)
def handed_over(request, tmp_path, monkeypatch):
    """A root whose version names a hostile judge; at the end nobody was called, and the judge's Python did not run."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "model"
    with listener() as (url, heard):
        foreign_version(tmp_path / "root", hostile_judge(request.param, url, folder))
        yield tmp_path / "root"
        assert heard == []
        assert not (folder / "ran").exists()


COMMANDS = (
    ["score", TEXT],
    ["score", TEXT, "--mode", "fast"],
    ["compare", TEXT, "another text"],
    ["profile", TEXT],
    ["extract", TEXT],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_calls_or_loads_the_judge_of_a_version_that_was_handed_over(handed_over, command, capsys):
    assert main([*command, "--root", str(handed_over)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("--server" if command[0] == "extract" else "--judge") in line  # extract asks no judge
    assert SECRET not in line


def test_commands_that_need_no_judge_still_read_such_a_version(handed_over, capsys):
    assert main(["values", "svt:benevolence", "--root", str(handed_over)]) == 0
    assert main(["vidb", "show", "--root", str(handed_over)]) == 0
    assert "anchor" in capsys.readouterr().out


def test_the_client_in_this_process_refuses_it_too(handed_over):
    with pytest.raises(InputError, match="judge"):
        asyncio.run(LocalClient(str(handed_over)).compare(TEXT, "another text", ["all"]))


def test_the_message_shows_the_judge_and_a_judge_that_the_user_names_is_used(tmp_path):
    named = {"kind": "openai", "name": "o\x1b[31m", "model": "m" * 500, "url": "http://127.0.0.1:9/v1", "key_env": "HOME"}
    foreign_version(tmp_path, named)
    version = vidb.load(str(tmp_path))
    with pytest.raises(InputError) as refused:
        judge_of(version, None)
    for shown in ("'openai'", "'http://127.0.0.1:9/v1'", "'HOME'", version.build.build_id):
        assert shown in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 800
    own = EndpointModel(name="own", model="m", key_env="")
    assert judge_of(version, own) is own


BUILT_BY = (EncoderJudge(name="mine", bag=3, num_gpus=8), SimulatedJudge(spread=2.0, seed=4, num_cpus=99, seconds_per_batch=60))


@pytest.mark.parametrize("builder_judge", BUILT_BY, ids=lambda judge: judge.kind)
def test_the_packaged_encoder_and_a_simulated_judge_are_taken_over_without_their_resources(tmp_path, caplog, builder_judge):
    foreign_version(tmp_path, builder_judge.public())
    with caplog.at_level(logging.INFO, "valueflow.service.local"):
        judge = judge_of(vidb.load(str(tmp_path)), None)
    assert fingerprint(judge) == fingerprint(builder_judge)
    assert judge.name == builder_judge.name
    assert judge.replica_resources == type(judge)().replica_resources
    assert getattr(judge, "seconds_per_batch", 0) == 0
    assert repr(judge.name) in caplog.text


def test_an_imported_version_is_scored_by_the_packaged_encoder_and_that_is_said(tmp_path, caplog):
    foreign_version(tmp_path, None)
    with caplog.at_level(logging.INFO, "valueflow.service.local"):
        assert judge_of(vidb.load(str(tmp_path)), None) == EncoderJudge()
    assert "imported" in caplog.text


def test_the_command_says_which_judge_it_uses(tmp_path, caplog):
    foreign_version(tmp_path, SimulatedJudge(name="known").public())
    assert main(["score", TEXT, "--root", str(tmp_path), "--output", str(Path(tmp_path, "scores.csv"))]) == 0
    assert "'known'" in caplog.text
