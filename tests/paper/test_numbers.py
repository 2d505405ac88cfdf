"""The paper's numbers: the shape they must have, and arithmetic that the paper states of them."""

import pytest

from intuitor_lib.paper.numbers import CHECKPOINTS, CLAIMS, FIGURES, TABLES, TRAINING
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.recipe.recipes import get_recipe


def test_every_table_and_figure_with_results_is_there():
    assert [*TABLES, *FIGURES] == [
        *(f"table-{i}" for i in range(1, 7)),
        *(f"figure-{i}" for i in range(3, 13)),
    ]
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) >= 15


def test_values_are_in_their_range():
    for table in TABLES.values():
        assert {len(values) for values in table.rows.values()} == {len(table.columns)}
        for row, column, value in table.cells():
            assert 0 <= value <= (100 if column == "AlpacaEval" else 1), (table.id, row, column)
    assert sum(1 for t in TABLES.values() for _ in t.cells()) == 8 * 6 + 12 + 24 + 48 + 18 + 18


def test_tables_agree_where_they_share_rows():
    one, two, three = (TABLES[f"table-{i}"] for i in (1, 2, 3))
    for row in ("Qwen2.5-1.5B", "Qwen2.5-3B"):
        for column in two.columns:
            assert one.value(row, column) == two.value(row, column)
    for column in one.columns:
        assert one.value("Qwen2.5-3B + INTUITOR", column) == three.value("β = 0.005", column)


def test_an_unknown_cell_is_refused():
    with pytest.raises(KeyError, match="its rows are"):
        TABLES["table-1"].value("Qwen", "GSM8K")


@pytest.mark.parametrize(
    ("column", "recipe"),
    [
        ("MATH 1.5B/3B", "intuitor"),
        ("MATH 7B/14B", "qwen2.5-7b"),
        ("Codeforces 3B", "intuitor-code"),
    ],
)
def test_recipes_have_table_7(column, recipe):
    found = get_recipe(recipe, "paper")
    for setting, value in TRAINING[column].items():
        if (column, setting) == ("MATH 1.5B/3B", "beta"):
            assert found.beta == 0.005  # the text and the public configuration
            assert "Table 7 says 0.0005" in Recipe.source("beta")
        else:
            assert getattr(found, setting) == value, setting


def test_checkpoints_belong_to_rows():
    rows = {row for table in TABLES.values() for row in table.rows}
    assert set(CHECKPOINTS) <= rows
    assert FIGURES["figure-8"]["printed"]["INTUITOR → INTUITOR"]["r"] == 0.45
