"""Files of profiles: what is in them, and that another program reads the same numbers."""

import csv
import io
import json

import numpy as np
import pytest
from pyvalues.values import RefinedCoarseValuesWithAttainment

from valueflow.errors import InputError
from valueflow.profiles.circle import CIRCLE
from valueflow.profiles.export import profiles_csv, profiles_json, prompt_text, pyvalues_tsv, rows, sentence, unit_of
from valueflow.profiles.table import NUMBERS, UnitProfiles
from valueflow.records import ValueId


def profiles(values=CIRCLE, units=("Ana", "=Boris")) -> UnitProfiles:
    rng = np.random.default_rng(0)
    shape = (len(units), len(values))
    columns = {name: rng.uniform(0, 1, shape) for name in NUMBERS}
    columns["intensity"] = rng.uniform(-9, 9, shape)
    columns["intensity"][0, 1] = np.nan
    columns["low"], columns["high"] = columns["intensity"] - 1, columns["intensity"] + 1
    columns["num_texts"] = np.full(shape, 12.0)
    statements = {(unit, value): [] for unit in units for value in values}
    return UnitProfiles(list(units), tuple(values), columns, rng.normal(size=(*shape, 4)), statements)


def test_the_csv_has_a_row_per_unit_and_value_and_nothing_that_a_spreadsheet_runs():
    found = list(csv.DictReader(io.StringIO(profiles_csv(profiles()))))
    assert len(found) == 24
    assert found[12]["unit"] == "'=Boris"
    assert found[1]["intensity"] == ""
    assert float(found[0]["intensity"]) == pytest.approx(profiles().columns["intensity"][0, 0])


def test_the_json_has_reliability_and_wave_and_no_nan():
    found = profiles_json(profiles(), dict.fromkeys(CIRCLE, 3.0), {"vidb_version": "v-1"})
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["about"] == {"vidb_version": "v-1"}
    unit = found["units"]["Ana"]
    assert len(unit["values"]) == 12
    assert unit["values"][1]["intensity"] is None
    assert unit["wave"]["nearest"] in CIRCLE
    assert unit["reliability"] is not None


def test_attainment_splits_a_signed_number_and_the_sidecar_has_what_the_format_lacks():
    original = profiles()
    scores, sidecar = pyvalues_tsv(original)
    (first, second) = csv.DictReader(io.StringIO(scores), delimiter="\t")
    assert (first["ID"], second["ID"]) == ("Ana", "=Boris")
    for v, value in enumerate(CIRCLE):
        name = value.node.capitalize()
        attained, constrained = (float(second[f"{name} {side}"]) for side in ("attained", "constrained"))
        assert 10 * (attained - constrained) == pytest.approx(original.columns["intensity"][1, v])
        assert min(attained, constrained) == 0
    assert (first["Stimulation attained"], first["Stimulation constrained"]) == ("0.0", "0.0")
    lines = list(csv.DictReader(io.StringIO(sidecar), delimiter="\t"))
    assert lines[1]["score"] == ""
    assert lines[0]["num_texts"] == "12"


def test_pyvalues_reads_the_same_numbers(tmp_path):
    file = tmp_path / "profiles.tsv"
    file.write_text(pyvalues_tsv(profiles())[0], "utf-8")
    documents = list(RefinedCoarseValuesWithAttainment.read_tsv(file, document_id_field="ID"))
    assert [document.id for document in documents] == ["Ana", "=Boris"]
    intensity = profiles().columns["intensity"][1]
    numbers = np.array(documents[1].values[0].to_list()).reshape(12, 2)
    assert 10 * (numbers[:, 0] - numbers[:, 1]) == pytest.approx(intensity)


@pytest.mark.parametrize("values", [(*CIRCLE, ValueId("mft:care-harm")), CIRCLE[:11]])
def test_theories_and_values_that_pyvalues_lacks_are_refused(values):
    with pytest.raises(InputError, match="pyvalues"):
        pyvalues_tsv(profiles(values))


def test_a_prompt_says_the_strongest_values_first_and_leaves_out_what_is_near_zero():
    power, care, face = ValueId("svt:power"), ValueId("svt:benevolence"), ValueId("svt:face")
    text = prompt_text({power: -7.2, care: 4.0, face: 0.5})
    assert text == "You turn against power (-7 of 10). You care about benevolence (+4 of 10)."
    assert prompt_text({care: 8.0}, "Ana") == "Ana cares very strongly about benevolence (+8 of 10)."
    assert "no value stands out" in prompt_text({care: 0.0})
    with pytest.raises(InputError, match="svt:power"):
        prompt_text({power: np.nan})


def test_a_sentence_says_the_side_only_where_the_interval_does():
    row = next(iter(rows(profiles())))
    assert "supports" in sentence("Ana", "Power", row | {"intensity": 3.0, "low": 1.0, "high": 5.0, "band": "high"})
    assert "no clear side" in sentence("Ana", "Power", row | {"intensity": 1.0, "low": -1.0, "high": 3.0, "band": "neutral"})
    assert "too few" in sentence("Ana", "Power", row | {"intensity": None})


def test_an_unknown_unit_is_named_with_near_ones():
    with pytest.raises(InputError, match="Ana"):
        unit_of(profiles(), "Anna")
