"""Every command's help has examples, and each of them runs as it is written."""

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.server import FakeServer, running
from fakes.service import FakeService

from valueflow import store
from valueflow.cli.main import main
from valueflow.cli.options import parser
from valueflow.distributed.submit import Submission
from valueflow.judging.configs import SimulatedJudge
from valueflow.vidb.anchor_files import import_version

REPOSITORY = Path(__file__).parents[2]
SERVER = "http://127.0.0.1:8000"
VALUES = ("benevolence_svt", "achievement_svt", "fidelity_duty")


def commands(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command and those below it."""
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


def examples(of: argparse.ArgumentParser) -> list[str]:
    return [line.strip() for line in of.format_help().partition("examples:\n")[2].splitlines()]


@pytest.mark.parametrize("command", list(commands(parser())), ids=lambda command: command.prog)
def test_every_command_has_examples_of_its_own_that_stay_on_their_lines(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert examples(command)
    assert all(line.startswith(f"{command.prog} ") or line == command.prog for line in examples(command))


def test_every_example_runs(tmp_path, monkeypatch, capsys):
    for name in ("valueflow", "conf"):  # the examples name files of the repository
        (tmp_path / name).symlink_to(REPOSITORY / name)
    root = tmp_path / "runs" / "demo"
    monkeypatch.chdir(tmp_path)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name in VALUES:
        (tmp_path / f"{name}.csv").write_text("text,final_rating\n" + "".join(f"anchor {i},{i / 4 - 5}\n" for i in range(40)))
    for licence in ("earlier", "MIT"):  # two versions, so that there is a way back
        version = import_version([f"{name}.csv" for name in VALUES], licence, "sample", str(root))[0]
        store.publish(str(root), version.build_id, store.current(str(root)))
    submitted = []

    async def run(submission: Submission, *_: object) -> int:
        submitted.append(submission.job)
        print(submission.base)
        return 0

    monkeypatch.setattr("valueflow.distributed.submit.run", run)  # there is no cluster
    monkeypatch.setattr("jobs.profile_model.main", lambda config: print(*(model.name for model in config.models)))
    # The version's own judge would be the encoder, which takes seconds to load.
    monkeypatch.setattr("valueflow.service.local.judge_of", lambda _, judge: judge or SimulatedJudge(seed=1))
    lines = dict.fromkeys(line for command in commands(parser()) for line in examples(command))
    with running(FakeServer(FakeService())) as server:
        for line in lines:
            words = shlex.split(line.replace(SERVER, server.url))
            code = main(words[1:])
            captured = capsys.readouterr()
            assert code == 0, (line, captured.err)
            assert captured.out or "--output" in line, line
    assert submitted == ["build_vidb"]
