"""The model card of an export: what was trained, on what, how, what it shows, and its limits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

from ..evaluation import evaluation_table, find_subject
from ..problems.tables import TABLE_SUFFIXES
from ..recipe import Recipe
from ..recipe.constants import EMBEDDED_PROBLEMS, GENERATED
from ..report import Table, training_summary
from ..report.curves import first_alarms
from ..store import EvaluationRecord, Run, RunStore
from ..store.files import redact, write_text
from .base import Base, loading_lines
from .merging import TOLERANCE, Check

_TEMPLATE = Path(__file__).with_name("card.md.j2")

_REWARDS = {
    "self_certainty": "the policy's own self-certainty",
    "late_self_certainty": "the policy's own self-certainty, one position late",
    "negative_entropy": "the policy's own low entropy",
    "plurality": "agreement with the most frequent answer of the policy's own group",
    "stated": "answers that can be read, right or wrong",
    "random": "chance",
    "accuracy": "answers that equal the reference answer",
    "unit_tests": "programs that pass unit tests",
}
_VERIFIED = ("accuracy", "unit_tests")


def write_card(folder: Path, run: Run, base: Base, name: str, check: Check | None) -> None:
    """Write `README.md` into the folder of an export.

    `name` is that of the export on the hub, else its folder's; `check` is that of merged weights.
    """
    merged, recipe = check is not None, run.recipe
    card = huggingface_hub.ModelCard.from_template(
        _metadata(run, base, merged),
        template_path=str(_TEMPLATE),
        run=run,
        recipe=recipe,
        name=name,
        base=base,
        check=check,
        tolerance=TOLERANCE,
        merged=merged,
        lines=loading_lines(run, name, base=base.name, merged=merged),
        rewards=" and ".join(_REWARDS[reward] for reward in recipe.rewards),
        verified=any(reward in _VERIFIED for reward in recipe.rewards),
        summary=training_summary([run]).to_markdown(),
        alarms=first_alarms(run.metrics),
        evaluations=_evaluations(run),
        problems=run.problems,
        settings=_settings(run).to_markdown(),
        environment=run.environment,
    )
    write_text(folder / "README.md", redact(f"{str(card).strip()}\n"))


def _metadata(run: Run, base: Base, merged: bool) -> huggingface_hub.ModelCardData:
    recipe = run.recipe
    elsewhere = recipe.dataset.startswith(GENERATED) or recipe.dataset in EMBEDDED_PROBLEMS
    kind = ["lora"] if recipe.use_lora else []
    return huggingface_hub.ModelCardData(
        base_model=base.name if base.on_hub else None,
        base_model_relation=("finetune" if merged else "adapter") if base.on_hub else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        datasets=None if elsewhere or _is_file(run) else [recipe.dataset],
        tags=["intuitor", "grpo", "trl", *kind],
        **base.licence,
    )


def _is_file(run: Run) -> bool:
    """Whether the problems came from a file of the machine: their source is its name alone."""
    path = Path(run.recipe.dataset)
    return path.suffix.lower() in TABLE_SUFFIXES or path.name == run.problems["source"] != str(path)


def _evaluations(run: Run) -> Table | None:
    """The finished evaluations of the run and of its base in its store."""
    store = RunStore(run.path.parent)
    base = _identity(find_subject(run.recipe, store).spec)

    def mine(record: EvaluationRecord) -> bool:
        policy = record.spec["policy"]
        return _identity(policy) in (base, {"run": run.id})

    found = [record for record in store.evaluations() if mine(record) and record.finished]
    found.sort(key=lambda r: (r.spec["benchmark"]["_title"], "run" in r.spec["policy"]))
    return evaluation_table(found) if found else None


def _identity(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in policy.items() if key[0] != "_"}


def _settings(run: Run) -> Table:
    """The settings that are not the defaults, without paths and addresses of the machine."""
    defaults = Recipe().to_dict()
    rows = []
    for key, value in run.recipe.changes(Recipe()).items():
        if key in ("name", "profile", "report_to"):
            continue
        if key in run.local_weights or (key == "dataset" and _is_file(run)):
            value = Path(value).name
        elif key == "vllm_server_base_url":
            value = "(left out)"
        cells = [json.dumps(x, ensure_ascii=False) for x in (value, defaults[key])]
        if key == "system_prompt":
            cells[1] = "the paper's for 3B"
        rows.append([f"`{key}`", Recipe.meaning(key), *cells])
    caption = f"Recipe `{run.recipe.name}`, profile `{run.recipe.profile}`, run `{run.id}`."
    return Table(["setting", "what it is", "value", "default"], rows, caption)
