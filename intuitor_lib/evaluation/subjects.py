"""Subjects of an evaluation: a run, a recipe's starting policy, a model with or without adapter.

Each has a specification that identifies it in the run store, and is loaded only when needed.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..policy import Policy, load_model, load_run
from ..policy.loading import base_settings
from ..problems import load_problems
from ..recipe import EMBEDDED_MODELS, InputError, Recipe
from ..recipe.files import folder_digest
from ..store import EvaluationRecord, Run, RunStore

_SETTINGS = ("adapter", "revision", "quantization", "dtype", "trust_remote_code")


@dataclass(frozen=True)
class Subject:
    """A policy to evaluate."""

    spec: dict[str, Any]  # JSON-ready; what identifies it, and `_name` for tables
    load: Callable[..., Policy]  # takes a `dtype` or `revision` instead of the specification's
    trained_on: frozenset[str] | None = None  # prompts of its training problems; None if unknown

    def kept(self) -> "Subject":
        """The same, loaded once for all evaluations."""
        return replace(self, load=functools.cache(self.load))


def find_subject(
    policy: Policy | Run | Recipe | Subject | str | Path,
    store: RunStore,
    *,
    step: int | None = None,
    **settings: Any,
) -> Subject:
    """Find the subject that the arguments of `evaluate` describe; `settings` are of a model alone.

    Raises:
        InputError: a run that is not finished or has no snapshot of that step, settings that
            conflict with a run's or recipe's own, an unknown quantization.
    """
    settings = dict.fromkeys(_SETTINGS) | settings
    if isinstance(policy, str | Path):
        folders = (Path(policy).expanduser(), store.root / policy)
        runs = [Run(folder) for folder in folders if (folder / "recipe.json").is_file()]
        policy = runs[0] if runs else str(policy)
    if step is not None and not isinstance(policy, Run):
        named = repr(policy) if isinstance(policy, str) else f"this {type(policy).__name__}"
        raise InputError(
            f"step={step}: only a run has steps, and {named} is none of {store.root}: "
            "give a run or its id, or leave out step"
        )
    if isinstance(policy, str):
        return _model(policy, settings)
    given = {key: value for key, value in settings.items() if value is not None}
    if given:
        raise InputError(
            f"{given}: only a model given by name or folder takes these; a run, a recipe and a "
            "loaded policy have their own"
        )
    if isinstance(policy, Run):
        return _run(policy, step)
    if isinstance(policy, Recipe):
        return _model(policy.model, base_settings(policy))
    return policy if isinstance(policy, Subject) else _loaded(policy)


def _run(run: Run, step: int | None) -> Subject:
    run.require_finished()
    # A step without a snapshot is refused here. The digest is no part of the key, which older
    # evaluations have without it; `require_same_weights` compares it.
    weights = run.weights_digest(step)
    spec: dict[str, Any] = {"run": run.id, "_name": run.id, "_weights": weights}
    if step is not None and step != run.result_step:
        spec |= {"step": step, "_name": f"{run.id}@{step}"}
    prompts = None
    # Its file or the hub may be out of reach now; the run can still be evaluated.
    with contextlib.suppress(InputError):
        prompts = frozenset(problem.prompt.strip() for problem in load_problems(run.recipe).train)
    return Subject(spec, lambda **_: load_run(run, step=step, frozen=True), prompts)


def require_same_weights(record: EvaluationRecord, subject: Subject) -> None:
    """Raise an `InputError` for an evaluation of other weights under the id of the same run."""
    before, now = record.spec["policy"].get("_weights"), subject.spec.get("_weights")
    if before and now and before != now:
        raise InputError(
            f"{record.id} is of other weights (digest {before}) than run {subject.spec['run']} has "
            f"now ({now}): the run was trained again, or one of the two comes from another store. "
            f"Remove the folder {record.path}, and evaluate again"
        )


def _model(model: str, settings: dict[str, Any]) -> Subject:
    settings = dict(settings)
    trust = bool(settings.pop("trust_remote_code"))  # does not change what is computed
    settings["adapter"] = settings["adapter"] and str(settings["adapter"])
    settings["quantization"] = settings["quantization"] or "none"
    settings["dtype"] = settings["dtype"] or "auto"
    if settings["quantization"] not in ("none", "nf4"):
        raise InputError(f"quantization={settings['quantization']!r}: choose 'none' or 'nf4'")
    name = model.removeprefix("embedded:").rstrip("/").rpartition("/")[2]
    spec = {
        "model": model,
        "model_weights": None if model in EMBEDDED_MODELS else folder_digest(model),
        **settings,
        "adapter_weights": settings["adapter"] and folder_digest(settings["adapter"]),
    }
    # A local folder is identified by its contents, not by its path.
    for key in ("model", "adapter"):
        if spec[f"{key}_weights"] is not None:
            spec[f"_{key}"] = spec.pop(key)
    quantized = "-nf4" if settings["quantization"] == "nf4" else ""
    added = settings["adapter"] and Path(settings["adapter"]).name
    spec["_name"] = name + quantized + (f"+{added}" if added else "")
    settings |= {"trust_remote_code": trust}
    return Subject(spec, lambda **other: load_model(model, **settings | other))


def _loaded(policy: Policy) -> Subject:
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    name = getattr(policy.model, "name_or_path", "") or type(policy.model).__name__
    spec = {"weights": digest.hexdigest()[:16], "_name": f"{Path(name).name}-loaded"}
    return Subject(spec, lambda **_: policy)
