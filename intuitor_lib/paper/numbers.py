"""The paper's numbers (arXiv 2505.19590v2), each with its table or figure, and its claims.

Accuracies are shares, AlpacaEval is a length-controlled win rate in percent. A figure has no
numbers of its own here but those that the paper prints in it; it has its finding.
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
    """A figure: what it shows and what is found in it; `printed` are the numbers in it."""

    id: str
    title: str
    finding: str
    printed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper that can be checked: where it stands, what was found there."""

    id: str
    text: str
    where: str
    found: str


def _table(id: str, title: str, columns: tuple[str, ...], text: str) -> PaperTable:
    """A table from lines of `label | value value ...`."""
    rows = {}
    for line in text.strip().splitlines():
        label, _, values = line.partition("|")
        rows[label.strip()] = tuple(float(value) for value in values.split())
        if len(rows[label.strip()]) != len(columns):
            raise ValueError(f"{id}: {line!r} has not {len(columns)} values")
    return PaperTable(id, title, columns, types.MappingProxyType(rows))


TABLES: Mapping[str, PaperTable] = types.MappingProxyType(
    {
        table.id: table
        for table in (
            _table(
                "table-1",
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
                "table-2",
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
                "table-3",
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
                "table-4",
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
                "table-5",
                "Table 5: Llama-3.2-3B-Instruct",
                BENCHMARK_COLUMNS,
                """
                Llama-3.2-3B-Instruct              | .688 .436 .106 .265 .340 11.07
                Llama-3.2-3B-Instruct + GRPO       | .714 .494 .127 .266 .361 13.62
                Llama-3.2-3B-Instruct + INTUITOR   | .723 .476 .134 .293 .358 12.41
                """,
            ),
            _table(
                "table-6",
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

FIGURES: Mapping[str, PaperFigure] = types.MappingProxyType(
    {
        figure.id: figure
        for figure in (
            PaperFigure(
                "figure-3",
                "Figure 3: completion length over 58 steps",
                "1.5B: it falls, as gibberish goes; 3B: it rises, most for INTUITOR",
            ),
            PaperFigure(
                "figure-4",
                "Figure 4: MATH500 and LiveCodeBench over steps, GRPO and INTUITOR",
                "the gain in domain comes first; transfer comes later and goes on",
            ),
            PaperFigure(
                "figure-5",
                "Figure 5: reasoning before the JSON of CRUXEval answers",
                "INTUITOR reasons freely before it, GRPO answers in JSON at once",
            ),
            PaperFigure(
                "figure-6",
                "Figure 6: INTUITOR-Code's answers over steps, ten LiveCodeBench problems",
                "valid code first, then reasoning before it",
            ),
            PaperFigure(
                "figure-7",
                "Figure 7: online and offline annotator over about 175 steps",
                "the offline one is exploited near step 100: length jumps, accuracy collapses",
            ),
            PaperFigure(
                "figure-8",
                "Figure 8: self-certainty of right and wrong answers to MATH500",
                "INTUITOR's own self-certainty separates them best; the base's does not",
                types.MappingProxyType(
                    {
                        "base → base": {"p": 0.52, "r": 0.00},
                        "INTUITOR → INTUITOR": {"p": 8e-24, "r": 0.45},
                        "base → INTUITOR": {"p": 8e-10, "r": 0.27},
                        "GRPO → GRPO": {"p": 2e-15, "r": 0.35},
                    }
                ),
            ),
            PaperFigure(
                "figure-9",
                "Figure 9: accuracy and length over steps, Qwen2.5-7B and -14B",
                "similar accuracy to GRPO, longer completions",
            ),
            PaperFigure(
                "figure-10",
                "Figure 10: accuracy and length over steps, Llama-3.2-3B-Instruct",
                "similar accuracy to GRPO, longer completions",
            ),
            PaperFigure(
                "figure-11",
                "Figure 11: accuracy and length over steps, OLMo-2-1124-7B-SFT",
                "similar accuracy to GRPO, longer completions",
            ),
            PaperFigure(
                "figure-12",
                "Figure 12: entropy minimization (1.5B) and a random reward (3B)",
                "both degenerate",
            ),
        )
    }
)
"""Figures 3 to 12 by id; 1 and 2 draw the method."""

TRAINING: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        "MATH 1.5B/3B": {
            "learning_rate": 3e-6,
            "problems_per_step": 128,
            "num_generations": 7,
            "beta": 0.0005,  # the text and the public configuration: 0.005
            "max_steps": 58,
            "max_prompt_length": 512,
            "max_completion_length": 3072,
        },
        "MATH 7B/14B": {
            "learning_rate": 1e-6,
            "problems_per_step": 64,
            "num_generations": 14,
            "beta": 0.01,
            "max_steps": 117,
            "max_prompt_length": 512,
            "max_completion_length": 3072,
        },
        "Codeforces 3B": {
            "learning_rate": 1e-6,
            "problems_per_step": 64,
            "num_generations": 14,
            "beta": 0.01,
            "max_steps": 50,
            "max_prompt_length": 1024,
            "max_completion_length": 2048,
        },
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

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "in-domain",
        "Self-certainty alone raises accuracy in the domain of training",
        "Table 1",
        "3B, MATH500 .544 → .612, GSM8K .673 → .792",
    ),
    Claim("matches-grpo", "It comes close to GRPO in domain", "Table 1", "MATH500 .612 to .636"),
    Claim(
        "transfer",
        "It transfers to other tasks better than GRPO",
        "Table 1",
        "3B, LCB .153 to .085, CRUX .416 to .341",
    ),
    Claim(
        "plurality",
        "A vote within the group (GRPO-PV) does nearly as well as answers do",
        "Table 1",
        "3B, MATH500 .636 and .636, GSM8K .820 to .826",
    ),
    Claim("early", "It learns faster than GRPO at first", "Table 2", "3B, step 10: .618 to .596"),
    Claim("length", "Completions grow", "Figure 3", "3B: longer, most of all for INTUITOR"),
    Claim(
        "instructions",
        "It follows instructions better",
        "Table 1",
        "3B, AlpacaEval 3.72 → 7.10 (GRPO 6.91)",
    ),
    Claim(
        "late-transfer",
        "In-domain gains come first, transfer follows",
        "Figure 4",
        "LCB rises on when MATH500 has levelled off",
    ),
    Claim(
        "reasons-first",
        "It reasons before it gives a structured answer, GRPO does not",
        "Figure 5",
        "free-form reasoning before CRUXEval's JSON",
    ),
    Claim(
        "code",
        "INTUITOR-Code: valid code first, then reasoning before it",
        "Figure 6",
        "shares of answers over 50 steps",
    ),
    Claim(
        "offline",
        "A frozen annotator is exploited, the policy's own is not",
        "Figure 7",
        "collapse near step 100 of 175",
    ),
    Claim(
        "kl",
        "The KL penalty matters: with less of it, transfer is lost",
        "Table 3",
        "LCB .153 at β = 0.005, .081 at 0",
    ),
    Claim(
        "separates",
        "Training makes self-certainty separate right from wrong",
        "Figure 8",
        "effect size r .00 (base) → .45 (INTUITOR), .35 (GRPO)",
    ),
    Claim("larger", "It works for 7B and 14B models", "Table 4, Figure 9", "7B, GSM8K .553 → .873"),
    Claim(
        "families",
        "It works for Llama and OLMo",
        "Tables 5, 6, Figures 10, 11",
        "Llama, MATH500 .436 → .476; OLMo .302 → .372",
    ),
    Claim(
        "entropy",
        "Minimizing entropy instead degenerates",
        "Figure 12",
        "1.5B: accuracy and length collapse",
    ),
    Claim("random", "A random reward degenerates", "Figure 12", "3B: accuracy falls"),
)
"""What can be checked, one line each; the replication summary answers every one."""


def get_table(id: str) -> PaperTable:
    """A table by id.

    Raises:
        KeyError: there is none of that id.
    """
    if id not in TABLES:
        raise KeyError(f"no table {id!r}: choose from {', '.join(TABLES)}")
    return TABLES[id]


def paper_ids() -> list[str]:
    """Every table with results and every figure: what needs a record of ours."""
    return [*TABLES, *FIGURES]
