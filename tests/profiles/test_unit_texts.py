"""Texts of units from users' files: what is kept, in which shard, and why a row or a file is refused."""

import pytest

from valueflow import store
from valueflow.errors import InputError
from valueflow.profiles.unit_texts import UnitColumns, save_unit_texts, shard_of
from valueflow.store import UnitTextsDetails

HEADER = "text,unit,thread,weight\n"


def saved(tmp_path, rows, header=HEADER, **columns):
    file = tmp_path / "units.csv"
    file.write_text(header + rows, "utf-8")
    return save_unit_texts(str(file), str(tmp_path / "root"), UnitColumns(**columns))


def test_texts_lie_in_the_shard_of_their_unit(tmp_path):
    build = saved(tmp_path, "".join(f"text {i},u{i % 7},,\n" for i in range(30)))
    manifest = store.require_manifest(build)
    assert manifest.details(UnitTextsDetails).units == 7
    for file in manifest.files:
        units = set(store.read_part(build, file)["unit"].to_pylist())
        assert {file.path} == {f"part-{shard_of(unit):02d}.parquet" for unit in units}
    assert store.read_table(build).num_rows == 30


def test_bad_rows_are_counted_and_the_others_kept(tmp_path, caplog):
    rows = "good,a,t1,0.5\n,a,t1,0.5\nno unit,,t1,0.5\nheavy,a,t1,2\nwordy,a,t1,much\n"
    build = saved(tmp_path, rows, thread="thread", weight="weight")
    (row,) = store.read_table(build).to_pylist()
    assert (row["text"], row["thread"], row["weight"]) == ("good", "t1", 0.5)
    assert store.details_of(build, UnitTextsDetails).unreadable == 4
    assert "4 rows left out" in caplog.text
    assert "text is empty" in caplog.text


@pytest.mark.parametrize(
    ("rows", "columns", "named"),
    [("a,b,,\n", {"unit": "person"}, "person"), (",a,,\n", {}, "text is empty"), ("", {}, "no text of a unit")],
)
def test_a_file_without_texts_of_units_is_refused_with_the_reason(tmp_path, rows, columns, named):
    with pytest.raises(InputError, match=named):
        saved(tmp_path, rows, **columns)


def test_the_same_rows_are_the_same_build_and_one_more_is_another(tmp_path):
    first = saved(tmp_path, "x,a,,\n")
    assert saved(tmp_path, "x,a,,\n") == first
    assert saved(tmp_path, "x,a,,\ny,a,,\n") != first
