"""The paper's numbers (arXiv 2505.19590v2), each with its table or figure, and its claims.

Accuracies are shares; AlpacaEval is a length-controlled win rate in percent. A figure has its
finding, and only the numbers that the paper prints in it.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BENCHMARK_COLUMNS",
    "CHECKPOINTS",
    "CLAIMS",
    "FIGURES",
    "TABLES",
    "TRAINING",
    "Claim",
    "PaperFigure",
    "PaperTable",
    "get_table",
    "paper_ids",
]

BENCHMARK_COLUMNS = ("GSM8K", "MATH500", "LCB", "CRUX", "MMLU-Pro", "AlpacaEval")
"""Columns of Tables 1 and 3 to 6: the six benchmarks."""


@dataclass(frozen=True)
class PaperTable:
    """A table: its rows by label, one value per column."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def value(self, row: str, column: str) -> float:
        """One cell.

        Raises:
            KeyError: no such row or column.
        """
        if row not in self.rows or column not in self.columns:
            raise KeyError(
                f"{self.id} has no cell {row!r}, {column!r}: its rows are {', '.join(self.rows)}, "
                f"its columns {', '.join(self.columns)}"
            )
        return self.rows[row][self.columns.index(column)]

    def cells(self) -> Iterator[tuple[str, str, float]]:
        """Row, column and value of every cell."""
        for row, values in self.rows.items():
            for column, value in zip(self.columns, values, strict=True):
                yield row, column, value


@dataclass(frozen=True)
class PaperFigure:
    """A figure: its title, its finding, and the numbers `printed` in it."""

    id: str
    title: str
    finding: str
    printed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper that can be checked: its place and the finding there."""

    id: str
    text: str
    where: str
    found: str


def _id(title: str) -> str:
    """`Table 1: main results` is `table-1`."""
    return title.partition(":")[0].lower().replace(" ", "-")


def _table(title: str, columns: tuple[str, ...], text: str) -> PaperTable:
    """A table from lines of `label | value value ...`."""
    rows = {}
    for line in text.strip().splitlines():
        label, _, values = line.partition("|")
        rows[label.strip()] = tuple(float(value) for value in values.split())
        if len(rows[label.strip()]) != len(columns):
            raise ValueError(f"{title}: {line!r} has not {len(columns)} values")
    return PaperTable(_id(title), title, columns, types.MappingProxyType(rows))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the indented line below it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return zip(lines[::2], lines[1::2], strict=True)


TABLES: Mapping[str, PaperTable] = types.MappingProxyType(
    {
        table.id: table
        for table in (
            _table(
                "Table 1: main results",
                BENCHMARK_COLUMNS,
                """
                Qwen2.5-1.5B                 | .002 .090 .000 .000 .297 2.10
                Qwen2.5-1.5B + GRPO          | .747 .560 .056 .328 .315 4.03
                Qwen2.5-1.5B + INTUITOR      | .711 .530 .099 .296 .310 4.28
                Qwen2.5-3B                   | .673 .544 .093 .236 .377 3.72
                Qwen2.5-3B + GRPO            | .826 .636 .085 .341 .403 6.91
                Qwen2.5-3B + GRPO-PV         | .820 .636 .086 .299 .398 6.17
                Qwen2.5-3B + INTUITOR        | .792 .612 .153 .416 .379 7.10
                Qwen2.5-3B + INTUITOR-Code   | .743 .572 .153 .411 .386 4.16
                """,
            ),
            _table(
                "Table 2: after 10 steps",
                ("GSM8K", "MATH500"),
                """
                Qwen2.5-1.5B                 | .002 .090
                Qwen2.5-1.5B + GRPO          | .081 .296
                Qwen2.5-1.5B + INTUITOR      | .152 .368
                Qwen2.5-3B                   | .673 .544
                Qwen2.5-3B + GRPO            | .758 .596
                Qwen2.5-3B + INTUITOR        | .811 .618
                """,
            ),
            _table(
                "Table 3: the KL penalty, Qwen2.5-3B + INTUITOR",
                BENCHMARK_COLUMNS,
                """
                β = 0        | .809 .598 .081 .390 .359 6.77
                β = 0.0001   | .793 .616 .090 .364 .354 6.79
                β = 0.005    | .792 .612 .153 .416 .379 7.10
                β = 0.01     | .803 .618 .130 .394 .371 6.54
                """,
            ),
            _table(
                "Table 4: larger models",
                BENCHMARK_COLUMNS,
                """
                Qwen2.5-7B                   | .553 .636 .026 .178 .497 4.46
                Qwen2.5-7B + GRPO            | .829 .750 .200 .538 .511 8.52
                Qwen2.5-7B + INTUITOR        | .873 .750 .190 .574 .514 12.76
                Qwen2.5-14B                  | .751 .674 .220 .491 .565 8.51
                Qwen2.5-14B + GRPO           | .917 .758 .296 .520 .578 17.53
                Qwen2.5-14B + INTUITOR       | .923 .770 .300 .560 .583 20.57
                Qwen3-14B                    | .480 .794 .358 .663 .597 29.22
                Qwen3-14B + INTUITOR         | .864 .834 .356 .677 .613 40.11
                """,
            ),
            _table(
                "Table 5: Llama-3.2-3B-Instruct",
                BENCHMARK_COLUMNS,
                """
                Llama-3.2-3B-Instruct              | .688 .436 .106 .265 .340 11.07
                Llama-3.2-3B-Instruct + GRPO       | .714 .494 .127 .266 .361 13.62
                Llama-3.2-3B-Instruct + INTUITOR   | .723 .476 .134 .293 .358 12.41
                """,
            ),
            _table(
                "Table 6: OLMo-2-1124-7B-SFT",
                BENCHMARK_COLUMNS,
                """
                OLMo-2-7B-SFT                | .691 .302 .023 .238 .295 6.51
                OLMo-2-7B-SFT + GRPO         | .710 .374 .028 .218 .296 7.38
                OLMo-2-7B-SFT + INTUITOR     | .710 .372 .028 .215 .291 7.60
                """,
            ),
        )
    }
)
"""Tables 1 to 6 by id. Table 7, the training settings, is `TRAINING`."""

_PRINTED = {
    "figure-8": {
        "base → base": {"p": 0.52, "r": 0.00},
        "INTUITOR → INTUITOR": {"p": 8e-24, "r": 0.45},
        "base → INTUITOR": {"p": 8e-10, "r": 0.27},
        "GRPO → GRPO": {"p": 2e-15, "r": 0.35},
    }
}

FIGURES: Mapping[str, PaperFigure] = types.MappingProxyType(
    {
        _id(title): PaperFigure(
            _id(title), title, finding, types.MappingProxyType(_PRINTED.get(_id(title), {}))
        )
        for title, finding in _pairs(
            """
            Figure 3: completion length over 58 steps
                1.5B: it falls, as gibberish goes; 3B: it rises, most for INTUITOR
            Figure 4: MATH500 and LiveCodeBench over steps, GRPO and INTUITOR
                the gain in domain comes first; transfer comes later and goes on
            Figure 5: reasoning before the JSON of CRUXEval answers
                INTUITOR reasons freely before it, GRPO answers in JSON at once
            Figure 6: INTUITOR-Code's answers over steps, ten LiveCodeBench problems
                valid code first, then reasoning before it
            Figure 7: online and offline annotator over about 175 steps
                the offline one is exploited near step 100: length jumps, accuracy collapses
            Figure 8: self-certainty of right and wrong answers to MATH500
                INTUITOR's own self-certainty separates them best; the base's does not
            Figure 9: accuracy and length over steps, Qwen2.5-7B and -14B
                similar accuracy to GRPO, longer completions
            Figure 10: accuracy and length over steps, Llama-3.2-3B-Instruct
                similar accuracy to GRPO, longer completions
            Figure 11: accuracy and length over steps, OLMo-2-1124-7B-SFT
                similar accuracy to GRPO, longer completions
            Figure 12: entropy minimization (1.5B) and a random reward (3B)
                both degenerate
            """
        )
    }
)
"""Figures 3 to 12 by id; 1 and 2 draw the method."""

_SETTINGS = (
    *("learning_rate", "problems_per_step", "num_generations", "beta", "max_steps"),
    *("max_prompt_length", "max_completion_length"),
)

TRAINING: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        column: dict(zip(_SETTINGS, values, strict=True))
        for column, values in {
            # beta is 0.005 in the text and the public configuration
            "MATH 1.5B/3B": (3e-6, 128, 7, 0.0005, 58, 512, 3072),
            "MATH 7B/14B": (1e-6, 64, 14, 0.01, 117, 512, 3072),
            "Codeforces 3B": (1e-6, 64, 14, 0.01, 50, 1024, 2048),
        }.items()
    }
)
"""Table 7, by column, under the names of `Recipe`'s settings."""

CHECKPOINTS: Mapping[str, str] = types.MappingProxyType(
    {
        "Qwen2.5-1.5B + GRPO": "sunblaze-ucb/Qwen2.5-1.5B-GRPO-MATH-1EPOCH",
        "Qwen2.5-1.5B + INTUITOR": "sunblaze-ucb/Qwen2.5-1.5B-Intuitor-MATH-1EPOCH",
        "Qwen2.5-3B + GRPO": "sunblaze-ucb/Qwen2.5-3B-GRPO-MATH-1EPOCH",
        "Qwen2.5-3B + INTUITOR": "sunblaze-ucb/Qwen2.5-3B-Intuitor-MATH-1EPOCH",
        "Qwen2.5-14B + INTUITOR": "sunblaze-ucb/Qwen2.5-14B-Intuitor-MATH-1EPOCH",
        "Qwen3-14B + INTUITOR": "sunblaze-ucb/Qwen3-14B-Intuitor-MATH-1EPOCH",
        "OLMo-2-7B-SFT + INTUITOR": "sunblaze-ucb/OLMo-2-7B-SFT-Intuitor-MATH-1EPOCH",
    }
)
"""Models that the authors published on the Hugging Face hub, by row of the tables."""

CLAIMS: tuple[Claim, ...] = tuple(
    Claim(id, text, where, found)
    for line, found in _pairs(
        """
        in-domain | Table 1 | Self-certainty alone raises accuracy in the domain of training
            3B, MATH500 .544 → .612, GSM8K .673 → .792
        matches-grpo | Table 1 | It comes close to GRPO in domain
            MATH500 .612 to .636
        transfer | Table 1 | It transfers to other tasks better than GRPO
            3B, LCB .153 to .085, CRUX .416 to .341
        plurality | Table 1 | A vote within the group (GRPO-PV) does nearly as well as answers do
            3B, MATH500 .636 and .636, GSM8K .820 to .826
        early | Table 2 | It learns faster than GRPO at first
            3B, step 10: .618 to .596
        length | Figure 3 | Completions grow
            3B: longer, most of all for INTUITOR
        instructions | Table 1 | It follows instructions better
            3B, AlpacaEval 3.72 → 7.10 (GRPO 6.91)
        late-transfer | Figure 4 | In-domain gains come first, transfer follows
            LCB rises on when MATH500 has levelled off
        reasons-first | Figure 5 | It reasons before it gives a structured answer, GRPO does not
            free-form reasoning before CRUXEval's JSON
        code | Figure 6 | INTUITOR-Code: valid code first, then reasoning before it
            shares of answers over 50 steps
        offline | Figure 7 | A frozen annotator is exploited, the policy's own is not
            collapse near step 100 of 175
        kl | Table 3 | The KL penalty matters: with less of it, transfer is lost
            LCB .153 at β = 0.005, .081 at 0
        separates | Figure 8 | Training makes self-certainty separate right from wrong
            effect size r .00 (base) → .45 (INTUITOR), .35 (GRPO)
        larger | Table 4, Figure 9 | It works for 7B and 14B models
            7B, GSM8K .553 → .873
        families | Tables 5, 6, Figures 10, 11 | It works for Llama and OLMo
            Llama, MATH500 .436 → .476; OLMo .302 → .372
        entropy | Figure 12 | Minimizing entropy instead degenerates
            1.5B: accuracy and length collapse
        random | Figure 12 | A random reward degenerates
            3B: accuracy falls
        """
    )
    for id, where, text in [line.split(" | ")]
)
"""The claims that can be checked; the replication summary has a verdict on each."""


def get_table(id: str) -> PaperTable:
    """Return a table by id.

    Raises:
        KeyError: the id is unknown.
    """
    if id not in TABLES:
        raise KeyError(f"no table {id!r}: choose from {', '.join(TABLES)}")
    return TABLES[id]


def paper_ids() -> list[str]:
    """Ids of every table with results and every figure, which all need a record of ours."""
    return [*TABLES, *FIGURES]
