"""The preflight: checks before a training, of prompts, end tokens, disk, and of the signal.

INTUITOR is expected to help where the model's self-certainty ranks right answers above wrong ones
to the same problem. The preflight measures this on a small sample of the untrained policy. It draws
from a random state of its own and does not affect the training.
"""

import functools
import hashlib
import json
import logging
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..certainty.completions import end_tokens
from ..grading import (
    clusters,
    describe_doubts,
    doubtful,
    echoed,
    extract_answers,
    grade_labelled,
    in_plurality,
)
from ..policy import Policy
from ..policy.linear import speed_up_linears
from ..policy.pretrained import Source, cached_commit
from ..problems import Problem, Problems, fit_prompts
from ..problems.prompts import PromptError, control_tokens, conversation, prompt_token_ids
from ..recipe import InputError, Recipe
from ..recipe.constants import SETTINGS
from ..report import Estimate, alignment, auc_within_groups
from ..rollouts.sampling import reason_against
from ..store import RunStore
from ..store.files import read_json, write_json
from .memory import MOMENTS
from .monitor import Rows, distinct, repetition
from .samples import sample_problems
from .savepoints import kept_checkpoints

logger = logging.getLogger(__name__)

_GROUPS_AT_LEAST = 5  # a bootstrap interval needs as many groups
_PROMPTS = 64  # prompts checked
_ECHOES = 0.1  # share of answers that may stand in their questions
_FORETELLING = (
    "over nine families of short problems its rank correlation with the gain over a random reward "
    "was 0.62 [-0.08, 0.95], and of three other families its forecast was right on 2, as many as "
    "if no gain had been said of each (notebook 12)"
)


@dataclass(frozen=True)
class Finding:
    """One check. `verdict` is ok, note, warning or fault; a fault prevents the training."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Preflight:
    """All findings, and the numbers behind them."""

    findings: tuple[Finding, ...]
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def faults(self) -> list[Finding]:
        """Findings that prevent the training."""
        return [finding for finding in self.findings if finding.verdict == "fault"]

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        return "\n".join(f"{f.verdict:<7}  {f.name:<{width}}  {f.text}" for f in self.findings)


def preflight(
    recipe: Recipe, problems: Problems, policy: Policy, *, runs: str | Path | None = None
) -> Preflight:
    """Check a training before it begins, once for each policy, problems and sampling.

    The result is kept in `preflights/` of the run store. The disk space is checked, and what was
    left out is told, each time.

    Args:
        recipe: the recipe to train.
        problems: its problems.
        policy: its untrained policy.
        runs: folder of the run store.

    Raises:
        InputError: as `fit_prompts`.
    """
    store = RunStore(runs)
    file = store.root / "preflights" / f"{_key(recipe, problems)}.json"
    try:
        kept = read_json(file)
        findings, numbers = [Finding(**found) for found in kept["findings"]], kept["numbers"]
    except (OSError, ValueError, KeyError, TypeError):
        began = time.perf_counter()
        findings, numbers = _look(recipe, problems, policy)
        numbers["seconds"] = round(time.perf_counter() - began, 1)
        # A fault is mended in the model's folder, so it is checked again.
        if not any(finding.verdict == "fault" for finding in findings):
            about = {"model": recipe.model, "problems": problems.describe()}
            write_json(file, about | asdict(Preflight(tuple(findings), numbers)))
    if "accuracy" not in recipe.rewards:  # answers that nothing matches do no harm then
        useless = ("answers", "fault")
        findings = [
            replace(found, verdict="warning") if (found.name, found.verdict) == useless else found
            for found in findings
        ]
    left_out = (Finding("left out", "warning", text) for text in problems.left_out)
    findings = [*left_out, *findings, *_gain(numbers), _disk(policy, recipe, store.root)]
    return Preflight(tuple(findings), numbers)


def _key(recipe: Recipe, problems: Problems) -> str:
    settings = {key: x for key, x in recipe.to_dict().items() if "sampling" in SETTINGS[key]}
    about = [settings | recipe.local_weights(), problems.fingerprint]
    text = json.dumps([*about, cached_commit(Source.of(recipe))], sort_keys=True)
    name = recipe.model.rpartition("/")[2].rpartition(":")[2]
    label = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)[-40:]
    return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _look(
    recipe: Recipe, problems: Problems, policy: Policy
) -> tuple[list[Finding], dict[str, Any]]:
    try:
        kept, dropped = fit_prompts(problems.train, recipe, policy.tokenizer)
    except PromptError as error:
        return [Finding("prompt text", "fault", str(error))], {}
    findings = [
        *_lengths(recipe, len(kept), len(dropped)),
        *_data(recipe, problems, policy.tokenizer),
        *_prompts(recipe, kept[:_PROMPTS], policy.tokenizer),
        _ending(recipe, kept[0], policy),
    ]
    reason = reason_against(policy.model)
    if not recipe.preflight_problems:
        reason = "preflight_problems=0"
    if reason is not None:
        return [*findings, Finding("sample", "warning", f"not sampled: {reason}")], {}
    if {recipe.rollout, recipe.update} & {"auto", "grouped"}:
        speed_up_linears(policy.model)  # as its training will
    # Spread over the problems, since a file may be sorted.
    number = min(recipe.preflight_problems, len(kept))
    chosen = [kept[i * len(kept) // number] for i in range(number)]
    numbers, rows, against = _measure(recipe, chosen, policy)
    found, auc, groups = signal(rows, against)
    numbers |= {"against": against, "auc": auc.to_dict() if auc else None, "mixed_groups": groups}
    return [*findings, *_sample(numbers, recipe), found], numbers


def _measure(
    recipe: Recipe, problems: Sequence[Problem], policy: Policy
) -> tuple[dict[str, Any], Rows, str]:
    """Numbers of a sample, and `signal`'s arguments: its rows and the name of their criterion."""
    group = recipe.num_generations
    completions, texts = sample_problems(policy, problems, recipe, group=group)
    ends = end_tokens(*policy)
    numbers: dict[str, Any] = {
        "problems": len(problems),
        "completions": len(completions),
        "clipped_ratio": statistics.mean(float(c.ids[-1] not in ends) for c in completions),
        "mean_length": statistics.mean(len(c.ids) for c in completions),
        "repetition": statistics.mean(repetition(c.ids) for c in completions),
        "distinct": distinct(texts, group),
    }
    how = recipe.answer_extraction
    stated = extract_answers(texts, how)
    groups = [stated[i : i + group] for i in range(0, len(stated), group)]
    voted = [vote for members in groups for vote in in_plurality(clusters(members, how))]
    ids = [problem.id for problem in problems for _ in range(group)]
    certainty = [completion.mean_certainty for completion in completions]

    def rows_by(good: Sequence[bool | None]) -> Rows:
        columns = zip(ids, certainty, good, strict=True)
        return [{"id": id, "value": value, "correct": is_good} for id, value, is_good in columns]

    answers = [problem.answer for problem in problems for _ in range(group)]
    name, against, good = "plurality", "the plurality answer", list[bool | None](voted)
    if any(answer is not None for answer in answers):
        name, against = "accuracy", "correctness"
        good = grade_labelled(stated, answers, how)
    found = alignment(rows_by(voted), "value")
    numbers["alignment"] = found.to_dict() if found else None
    rows = rows_by(good)
    numbers[name] = statistics.mean(float(x) for x in good if x is not None)
    return numbers, rows, against


def _lengths(recipe: Recipe, kept: int, dropped: int) -> Iterator[Finding]:
    if dropped:
        text = f"{dropped} of {kept + dropped} prompts are longer than max_prompt_length="
        text += f"{recipe.max_prompt_length} tokens and left out. Raise it to train on them"
        yield Finding("prompt length", "warning", text)


def _data(recipe: Recipe, problems: Problems, tokenizer: Any) -> Iterator[Finding]:
    """Problems with control tokens, answers that nothing can match, or that the question holds."""
    both = [*problems.train, *problems.held_out]
    held = control_tokens(tokenizer, {problem.id: problem.prompt for problem in both})
    if held:
        yield Finding("control tokens", "warning", held)
    answers = {problem.id: problem.answer for problem in both if problem.answer is not None}
    found = doubtful(answers, recipe.answer_extraction)
    if found:
        text = describe_doubts(answers, found)
        yield Finding("answers", "fault" if len(found) == len(answers) else "warning", text)
    words = [id for id, answer in answers.items() if not any(map(str.isdigit, answer))]
    if words and recipe.answer_extraction in ("alone", "last_number"):
        text = f"{len(words)} of {len(answers)} reference answers have no number; the first, of "
        text += f"{words[0]}, is {answers[words[0]][:60]!r}. answer_extraction="
        text += f"{recipe.answer_extraction!r} finds numbers and boxes: choose 'whole' or 'boxed'"
        yield Finding("answers", "warning", text)
    looked_at = [problem for problem in both if problem.answer][:_PROMPTS]
    both_texts = [p.prompt for p in looked_at], [p.answer or "" for p in looked_at]
    echoes = echoed(*both_texts, recipe.answer_extraction)
    if sum(echoes) > _ECHOES * len(echoes):
        first = looked_at[echoes.index(True)]
        text = (
            f"in {sum(echoes)} of {len(echoes)} problems the answer is a number of the question "
            f"(the first is {first.id}): repeating the question scores there, and accuracy shows "
            "less skill than it seems. Leave such problems out"
        )
        yield Finding("echoes", "warning", text)


def _prompts(recipe: Recipe, problems: Sequence[Problem], tokenizer: Any) -> Iterator[Finding]:
    """Whether prompts end with the template's generation prompt, and begin with one start token."""
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    render = functools.partial(tokenizer.apply_chat_template, conversations, tokenize=False)
    bare, text = render()[0], render(add_generation_prompt=True)[0]
    opening = text[len(bare) :] if text.startswith(bare) else ""
    all_ids = prompt_token_ids(tokenizer, conversations)
    ends = [tokenizer.decode(ids).rstrip().endswith(opening.strip()) for ids in all_ids]
    wrong = [problem.id for problem, right in zip(problems, ends, strict=True) if not right]
    if not opening:
        text = "the chat template adds nothing after the user's turn (no generation prompt), so "
        yield Finding("prompt end", "warning", text + "the model may go on with that turn")
    elif wrong:
        text = f"{len(wrong)} prompts of {len(problems)} do not end with the template's {opening!r}"
        text += f" (the first is {wrong[0]}): the tokenizer cuts or changes them"
        yield Finding("prompt end", "fault", text)
    else:
        yield Finding("prompt end", "ok", f"every prompt ends with the template's {opening!r}")
    start = tokenizer.bos_token_id
    if start is not None and all_ids[0][:2] == [start, start]:
        text = f"prompts begin with {tokenizer.bos_token!r} twice: the chat template and the "
        yield Finding("prompt start", "warning", text + "tokenizer both add it")


def _ending(recipe: Recipe, problem: Problem, policy: Policy) -> Finding:
    """Whether an end token of the model is part of how the chat template ends a turn."""
    ends = end_tokens(*policy)
    tokenizer = policy.tokenizer
    rows = policy.model.get_output_embeddings().weight.shape[0]
    if not any(0 <= i < rows for i in ends):
        text = f"end tokens {sorted(ends)} are outside of its {rows} logits"
        if not ends:
            text = "the model names no end token: every completion would run to its limit. Set "
            text += "generation_config.eos_token_id in the model's folder"
        return Finding("end token", "fault", text)
    turn = [*conversation(problem.prompt, recipe), {"role": "assistant", "content": "Answer."}]
    text = tokenizer.apply_chat_template([turn], tokenize=False)[0]
    after = tokenizer(text.rpartition("Answer.")[2], add_special_tokens=False)["input_ids"]
    words = ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in sorted(ends))
    if after and not ends & set(after):
        text = f"the chat template ends a turn with {tokenizer.decode(after)!r}, which none of the "
        text += f"model's end tokens ({words}) is part of: completions may run on"
        return Finding("end token", "warning", text)
    return Finding("end token", "ok", f"completions end with {words}")


def _sample(numbers: dict[str, Any], recipe: Recipe) -> Iterator[Finding]:
    """Length, diversity, repetition and accuracy of the sampled completions."""
    n, limit, group = numbers["completions"], recipe.max_completion_length, recipe.num_generations
    clipped, different = numbers["clipped_ratio"], numbers["distinct"]
    text = f"{clipped:.0%} of {n} completions reach max_completion_length={limit}"
    if clipped > 0.5:
        text += ": their answers may be cut off. Raise it, or ask for shorter answers"
    yield Finding("length", "warning" if clipped > 0.5 else "ok", text)
    text = f"{different:.0%} of a group's {group} completions do not copy another"
    if different < 0.2:
        text += ": equal ones have no advantage over each other. Raise temperature"
    yield Finding("diversity", "warning" if different < 0.2 else "ok", text)
    if numbers["repetition"] > 0.3:
        text = f"{numbers['repetition']:.0%} of the 4-grams of a completion repeat an earlier one"
        yield Finding("repetition", "warning", text)
    accuracy = numbers.get("accuracy", 0.5)
    if not 0.02 <= accuracy <= 0.98:
        text = f"the untrained policy is right in {accuracy:.0%} of {n} completions: too "
        text += f"{'hard' if accuracy < 0.5 else 'easy'} to learn much from"
        yield Finding("accuracy", "warning", text)


def signal(rows: Rows, against: str) -> tuple[Finding, Estimate | None, int]:
    """Whether self-certainty ranks the good completions of a problem above its other ones.

    `rows` have `id` of the problem, `value` (self-certainty, nats) and `correct` of each
    completion, by the criterion `against`. Beside the finding, the AUC and the number of problems
    with both kinds: the probability that the good completion of a pair from one problem has the
    higher self-certainty, averaged over these problems, None with too few.
    """
    auc = auc_within_groups(rows, "value")
    n = 0 if auc is None else auc.n
    if auc is None or n < _GROUPS_AT_LEAST:
        text = (
            f"not measurable: {n} of the sampled problems have both kinds of completions (by "
            f"{against}), {_GROUPS_AT_LEAST} are needed. Raise preflight_problems, or take "
            "problems that the model sometimes solves"
        )
        return Finding("signal", "warning", text), None, n
    text = f"AUC of self-certainty against {against} within {n} problems: {auc.text()}. "
    if auc.low > 0.5:
        text += "Certain completions tend to be good ones: there is a signal"
    elif auc.high < 0.5:
        text += "Certain completions tend to be WORSE: training on certainty would favour them"
    else:
        text += "Undecided: in this sample certainty may rank no better than at random"
    return Finding("signal", "ok" if auc.low > 0.5 else "warning", text), auc, n


def _gain(numbers: dict[str, Any]) -> Iterator[Finding]:
    """That no gain can be told beforehand, by docs/protocol.md, and what was tried."""
    if numbers.get("alignment") is not None:
        text = (
            "no number taken before a training is known to tell what it gains. The one that was "
            "chosen to, self-certainty's advantage x vote, is "
            f"{Estimate(**numbers['alignment']).text()} here; {_FORETELLING}. Train the random "
            "reward beside it, on problems of which some are labelled"
        )
        yield Finding("gain", "note", text)


def _disk(policy: Policy, recipe: Recipe, root: Path) -> Finding:
    """Whether checkpoints (weights, AdamW's moments), snapshots and the result fit on the disk."""
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    snapshots = recipe.max_steps // recipe.snapshot_steps if recipe.snapshot_steps else 0
    checkpoints = kept_checkpoints(recipe) + 1  # the oldest goes once a new one is written
    needed = trained * (checkpoints * (4 + MOMENTS[recipe.optim]) + (snapshots + 1) * 4)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    text = f"{free / 2**30:.1f} GiB are free, a training writes up to {needed / 2**30:.2f} GiB"
    if free < needed:
        return Finding("disk", "fault", f"{text}: free some, or name another folder with --runs")
    return Finding("disk", "warning" if free < 2 * needed else "ok", text)


def require(found: Preflight, name: str) -> None:
    """Log the warnings of the preflight of the recipe `name`, and refuse one that has faults."""
    for finding in found.findings:
        if finding.verdict == "warning":
            logger.warning("preflight, %s: %s", finding.name, finding.text)
    if found.faults:
        listed = "; ".join(f"{finding.name}: {finding.text}" for finding in found.faults)
        raise InputError(
            f"recipe {name!r} should not be trained like this: {listed}. "
            "(preflight_problems=0 trains without these checks)"
        )
