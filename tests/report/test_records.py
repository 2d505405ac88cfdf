"""Records of notebooks."""

import json
import math

import pytest

from intuitor_lib.paper import load_records
from intuitor_lib.recipe import InputError
from intuitor_lib.report.records import load_record, save_record
from intuitor_lib.report.tables import Table
from intuitor_lib.store import FORMAT


def test_a_record_comes_back_and_a_missing_one_names_the_command(tmp_path):
    table = Table(["a"], [["1"]], "c")
    save_record("00_quickstart", "smoke", table=table, values={"n": 3}, runs=tmp_path)
    record = load_record("00_quickstart", "smoke", runs=tmp_path)
    assert record["values"] == {"n": 3}
    assert record["environment"]["packages"]["torch"]
    with pytest.raises(KeyError, match="intuitor reproduce 00_quickstart --profile cpu"):
        load_record("00_quickstart", "cpu", runs=tmp_path)


def test_a_record_of_a_later_format_is_refused_and_one_without_a_number_is_read(tmp_path):
    path = save_record("00_quickstart", "smoke", table=Table([], [], "c"), values={}, runs=tmp_path)
    content = json.loads(path.read_text())
    assert content["environment"].pop("format") == FORMAT
    path.write_text(json.dumps(content))
    assert load_record("00_quickstart", "smoke", runs=tmp_path) == content
    content["environment"]["format"] = FORMAT + 1
    path.write_text(json.dumps(content))
    for read in (load_record, lambda *_, runs: load_records("smoke", runs, committed=False)):
        with pytest.raises(InputError, match=rf"00_quickstart-smoke.json has format {FORMAT + 1}"):
            read("00_quickstart", "smoke", runs=tmp_path)


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    table = Table(["a"], [["1"]], "c")
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_record("x", "smoke", table=table, values={"kl": math.nan}, runs=tmp_path)
    assert not list(tmp_path.rglob("*.json"))
