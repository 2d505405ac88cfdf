"""Tables of evaluations: scores as their rows say, pairs that belong together, names kept apart."""

import json

import pytest

from intuitor_lib.evaluation.benchmarks.alpaca import write_outputs
from intuitor_lib.evaluation.scoreboard import (
    comparison_table,
    evaluation_table,
    find_evaluations,
    score,
)
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.report.intervals import difference_over_problems, mcnemar, proportion
from intuitor_lib.store.run_store import RunStore


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def stored(
    store,
    name,
    marks,
    *,
    benchmark="chain_sum",
    samples=1,
    stands_in_for="MATH500",
    how=None,
    stop=None,
    **run,
):
    """An evaluation with these verdicts, `samples` for each item in turn."""
    n = len(marks) // samples
    spec = {
        "policy": {"model": name, "_name": name, **run},
        "benchmark": {
            "name": benchmark,
            **({"extraction": how} if how else {}),
            **({"stop": stop} if stop else {}),
            "items": "0123",
            "n": n,
            "seed": 0,
            "_title": benchmark,
            "_metric": "accuracy",
            "_stands_in_for": stands_in_for,
            "_ids": [f"i{i}" for i in range(n)],
        },
        "decoding": {
            "temperature": 0.9 if samples > 1 else 0.0,
            "num_samples": samples,
            "max_new_tokens": 64,
            "system_prompt": None,
            "_batch_size": 4,
        },
    }
    record = store.open_evaluation(spec)
    record.append(
        {
            "id": f"i{i // samples}",
            "sample": i % samples,
            "prompt": "p",
            "completion": "c",
            "correct": {"1": True, "0": False, "?": None}[mark],
            "tokens": 3 + i,
            "clipped": False,
            "self_certainty": 10.0,
        }
        for i, mark in enumerate(marks)
    )
    return record


def cells(table, row=0):
    return dict(zip(table.header, table.rows[row], strict=True))


def test_a_row_says_what_was_measured_and_on_what(store):
    table = evaluation_table([stored(store, "tiny", "1101000000")])
    row = cells(table)
    assert row["benchmark"] == "chain_sum"
    assert row["policy"] == "tiny"
    assert row["n"] == "10"
    assert row["decoding"] == "greedy, <= 64"
    assert row["score"] == proportion(3, 10).text()
    assert row["pass@k"] == row["majority@k"] == "-"
    assert row["tokens"].startswith("7.5 ")
    assert "no results of the benchmarks they stand in for: chain_sum for MATH500" in table.caption


def test_an_unfinished_one_says_so(store):
    record = stored(store, "tiny", "1101")
    file = record.path / "items.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    assert cells(evaluation_table([record]))["n"] == "4 (unfinished)"
    with pytest.raises(InputError, match="nothing to compare"):
        comparison_table([record], [stored(store, "other", "1101")])
    file.unlink()
    assert cells(evaluation_table([record]))["score"] == "-"


def test_samples_have_their_scores(store):
    record = stored(store, "tiny", "1100" + "0000" + "1000", samples=4)
    votes = [{"id": f"i{i}", "correct": i == 0} for i in range(3)]
    record.set_votes(votes)
    scores = score(record)
    assert scores["accuracy"].value == pytest.approx(3 / 12)
    assert scores["pass@4"].value == pytest.approx(2 / 3)
    assert (scores["majority@4"].value, scores["majority@4"].n) == (pytest.approx(1 / 3), 3)
    row = cells(evaluation_table([record]))
    assert row["decoding"] == "4 x at 0.9, <= 64"
    assert row["pass@k"].startswith("0.67")
    assert row["majority@k"].startswith("0.33")


def test_a_comparison_is_paired(store):
    before, after = stored(store, "base", "1110000000"), stored(store, "new", "1001111000")
    table = comparison_table([before], [after])
    row = cells(table)
    change = difference_over_problems(before.rows, after.rows, "correct")
    assert row["difference"] == f"+0.20 [{change.low:+.2f}, {change.high:+.2f}]"
    assert row["won / lost"] == "4 / 2"
    assert float(row["McNemar p"]) == pytest.approx(mcnemar(before.rows, after.rows)["p"], rel=0.02)
    assert row["base"] == proportion(3, 10).text()
    assert row["new"] == proportion(5, 10).text()


def test_only_the_same_question_is_compared(store):
    base = [stored(store, "base", "10"), stored(store, "base", "1000", benchmark="gsm_symbolic")]
    new = [
        stored(store, "new", "11"),
        stored(store, "new", "1111", benchmark="gsm_symbolic", samples=2),
    ]
    table = comparison_table(base, new)
    assert [row[0] for row in table.rows] == ["chain_sum"]


def test_answers_that_were_read_in_another_way_are_not_compared(store):
    boxed, harness = (stored(store, "new", "10", how=how) for how in ("boxed", "harness"))
    base = stored(store, "base", "11", how="boxed")
    row = cells(comparison_table([base], [harness, boxed]))
    assert row["decoding"] == "greedy, <= 64, boxed"
    with pytest.raises(InputError, match="nothing to compare"):
        comparison_table([base], [harness])
    stopped = stored(store, "new", "10", how="boxed", stop=["Question:"])
    with pytest.raises(InputError, match="nothing to compare"):
        comparison_table([base], [stopped])


def test_two_of_one_name_are_told_apart_by_their_ids(store):
    base = stored(store, "base", "10")
    twins = [stored(store, "Q+adapter", "11", adapter_weights=weights) for weights in "ab"]
    with pytest.raises(InputError, match=f"{twins[0].id} and {twins[1].id} are both Q.adapter"):
        comparison_table([base], twins)


def test_items_without_an_answer_count_for_nothing(store):
    record = stored(store, "new", "1100??", samples=2)
    assert score(record)["pass@2"].value == score(record)["accuracy"].value == 0.5
    sides = [stored(store, name, "1?0") for name in ("first", "second")]
    assert cells(comparison_table(sides[:1], sides[1:]))["won / lost"] == "0 / 0"


def test_samples_are_compared_without_mcnemar(store):
    sides = [stored(store, name, "1100", samples=2) for name in ("base", "new")]
    row = cells(comparison_table(sides[:1], sides[1:]))
    assert row["difference"] == "+0.00 [-0.66, +0.66]"  # all alike, but only two problems
    assert row["won / lost"] == row["McNemar p"] == "-"


def test_what_is_not_judged_has_no_score(store):
    sides = [
        stored(store, name, "??", benchmark="alpaca_eval", stands_in_for=None)
        for name in ("base", "new")
    ]
    table = evaluation_table(sides)
    assert [cells(table, i)["score"] for i in (0, 1)] == ["not judged", "not judged"]
    assert "Stand-ins" not in table.caption
    row = cells(comparison_table(sides[:1], sides[1:]))
    assert (row["base"], row["difference"]) == ("not judged", "-")


def test_a_judges_verdict_is_the_score(store):
    record = stored(store, "tiny", "??", benchmark="alpaca_eval", stands_in_for=None)
    write_outputs(record.path, record.rows, "tiny")
    (record.path / "judge").mkdir()
    (record.path / "judge" / "leaderboard.csv").write_text(
        ",win_rate,standard_error,n_total,avg_length,length_controlled_winrate,lc_standard_error\n"
        "tiny,12.5,2.0,2,30,10.0,1.0\n"
    )
    assert cells(evaluation_table([record]))["score"] == "0.10 [0.08, 0.12]"
    assert score(record)["win_rate"].value == 0.125


def test_evaluations_are_found_by_policy_run_and_id(store):
    first = stored(store, "base", "10")
    second = stored(store, "base", "10", benchmark="gsm_symbolic")
    trained = stored(store, "quickstart-s7-abc", "11", run="quickstart-s7-abc")
    assert {r.id for r in find_evaluations(store, "base")} == {first.id, second.id}
    assert [r.id for r in find_evaluations(store, first.id)] == [first.id]
    assert [r.id for r in find_evaluations(store, f"{first.path}/")] == [first.id]
    assert [r.id for r in find_evaluations(store, "quickstart-s7-abc")] == [trained.id]
    run = {"run": "quickstart-s7-abc", "step": 2}
    snapshot = stored(store, "quickstart-s7-abc@2", "10", **run)
    assert [r.id for r in find_evaluations(store, "quickstart-s7-abc")] == [trained.id]
    assert [r.id for r in find_evaluations(store, "quickstart-s7-abc@2")] == [snapshot.id]
    with pytest.raises(InputError, match="holds evaluations of: base, quickstart-s7-abc"):
        find_evaluations(store, "nothing")


def test_names_do_not_tell_evaluations_apart_and_settings_do(store):
    record = stored(store, "tiny", "10")
    spec = record.spec
    spec["decoding"]["_batch_size"] = 99
    spec["policy"]["_name"] = "renamed"
    assert store.open_evaluation(spec).path == record.path
    spec["decoding"]["temperature"] = 0.5
    other = store.open_evaluation(spec)
    assert other.path != record.path
    assert json.loads((other.path / "evaluation.json").read_text()) == spec
    assert list(store) == []  # evaluations are no runs
