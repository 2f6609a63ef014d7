"""Theories under any spelling, wherever a theory may be named."""

import pytest

from valueflow.cli.main import main
from valueflow.errors import InputError
from valueflow.theories import expand, find_theory, operational, resolve, resolve_theory
from valueflow.vidb.candidates import CandidatesConfig, chosen_values

SPELLINGS = {
    "mft": ("MFT", "mft", " Mft ", "Moral Foundations Theory", "moral foundations", "MORAL_FOUNDATIONS_THEORY"),
    "svt": ("SVT", "Schwartz", "schwartz", "PVQ", "Schwartz's basic human values", "Basic Human Values"),
    "duty": ("Duty", "duties", "Ross", "Ross's prima facie duties"),
    "right": ("RIGHTS", "Vasak", "Vasak's three generations of rights"),
}
ALL_SPELLINGS = [(spelling, theory) for theory, spellings in SPELLINGS.items() for spelling in spellings]


@pytest.mark.parametrize(("spelling", "theory"), ALL_SPELLINGS)
def test_every_spelling_names_its_theory_in_every_place(spelling, theory):
    of_theory = [value for value in operational() if value.theory == theory]
    assert (find_theory(spelling), resolve_theory(spelling)) == (theory, theory)
    assert expand([spelling, of_theory[0], spelling.upper()]) == of_theory
    assert chosen_values(CandidatesConfig(values=[spelling])) == of_theory
    assert resolve(f"{spelling}:{of_theory[0].node}") == of_theory[0]


@pytest.mark.parametrize(
    ("spelling", "suggestion"), [("MTF", "mft"), ("Schwarz", "schwartz"), ("moral foundation", "moral-found")]
)
def test_a_near_spelling_is_suggested(spelling, suggestion):
    for refused in (resolve_theory, resolve):
        with pytest.raises(InputError, match=f"did you mean '{suggestion}"):
            refused(spelling)


def test_a_theory_that_a_version_lacks_is_refused():
    available = [value for value in operational() if value.theory == "svt"]
    assert expand(["schwartz"], available) == available
    with pytest.raises(InputError, match="mft"):
        expand(["MFT"], available)


@pytest.mark.parametrize("name", ["MFT", "Moral Foundations Theory", "moral_foundations"])
def test_the_command_lists_a_theory_by_any_spelling(name, tmp_path, monkeypatch, capsys):
    from foreign import foreign_version

    monkeypatch.delenv("VALUEFLOW_SERVER", raising=False)
    foreign_version(tmp_path / "root", None)
    assert main(["values", name, "--root", str(tmp_path / "root")]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert {line.partition(":")[0] for line in lines} == {"mft"}
    (tmp_path / "judge.yaml").write_text("kind: simulated")
    options = ["--dry-run", "--root", str(tmp_path / "root"), "--judge", str(tmp_path / "judge.yaml")]
    assert main(["score", "a text", "--value", "Basic Human Values", *options]) == 0
