"""The preflight: its findings, that it does not affect the training, that it runs once."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from intuitor_lib.cli.script import main
from intuitor_lib.paper.comparison import load_records
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.report import Estimate
from intuitor_lib.training.readiness import _disk, preflight, signal
from intuitor_lib.training.samples import sample_problems
from intuitor_lib.training.training import train


def rows_of(groups):
    return [
        {"id": str(i), "value": s, "correct": g} for i, group in enumerate(groups) for s, g in group
    ]


def test_the_signal_is_the_area_under_the_curve():
    """Per problem the Mann-Whitney U over the number of pairs, averaged over problems."""
    draw = np.random.default_rng(0)
    groups = [
        [
            (float(round(s, 1)), bool(g))
            for s, g in zip(draw.normal(size=8), [1] * 3 + [0] * 5, strict=True)
        ]
        for _ in range(12)
    ]
    _, auc, n = signal(rows_of(groups), "correctness")
    areas = []
    for group in groups:
        good, bad = [s for s, g in group if g], [s for s, g in group if not g]
        areas.append(mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))
    assert (auc.value, n) == (pytest.approx(np.mean(areas)), 12)
    assert auc.low < auc.value < auc.high


@pytest.mark.parametrize(
    ("good", "verdict", "says"),
    [(1.0, "ok", "there is a signal"), (-1.0, "warning", "WORSE"), (0.0, "warning", "Undecided")],
)
def test_what_the_signal_means_is_said(good, verdict, says):
    draw = np.random.default_rng(1)
    groups = [
        [(good * 3 + s, True) for s in draw.normal(size=4)]
        + [(s, False) for s in draw.normal(size=4)]
        for _ in range(20)
    ]
    found, _, _ = signal(rows_of(groups), "correctness")
    assert (found.verdict, says in found.text) == (verdict, True)


def test_problems_with_one_kind_of_completions_tell_nothing():
    groups = [[(1.0, True), (2.0, True)]] * 30 + [[(1.0, True), (0.0, False)]] * 4
    found, auc, n = signal(rows_of(groups), "correctness")
    assert (auc, n, found.verdict) == (None, 4, "warning")
    assert "not measurable: 4 of" in found.text


@pytest.fixture
def tiny_recipe(tiny_recipe):
    return tiny_recipe.replace(preflight_problems=16)


@pytest.fixture
def policy(tiny_recipe):
    return load_policy(tiny_recipe)


def test_it_is_done_once(tiny_recipe, policy, tmp_path, monkeypatch):
    problems = load_problems(tiny_recipe)
    first = preflight(tiny_recipe, problems, policy, runs=tmp_path)
    assert first.faults == []
    assert first.numbers["completions"] == 32
    names = [finding.name for finding in first.findings]
    assert names[:3] == ["echoes", "prompt end", "end token"]  # 0+1= has its answer in it
    assert {"length", "diversity", "signal", "disk"} <= set(names)

    def fail(*_, **__):
        raise AssertionError("sampled again")

    monkeypatch.setattr("intuitor_lib.training.samples.sample_completions", fail)
    # How it is trained does not change what was found.
    other = tiny_recipe.replace(learning_rate=1e-5, max_steps=9, beta=0.1, seed=3)
    assert preflight(other, problems, policy, runs=tmp_path) == first
    for changes in ({"temperature": 0.5}, {"max_completion_length": 7}):
        with pytest.raises(AssertionError, match="sampled again"):
            preflight(tiny_recipe.replace(**changes), problems, policy, runs=tmp_path)


def test_what_a_training_writes_is_counted(tiny_recipe, tmp_path):
    weights = 2**28
    policy = SimpleNamespace(model=SimpleNamespace(parameters=lambda: [meta(weights)]))

    def gib(**changes):
        text = _disk(policy, tiny_recipe.replace(max_steps=40, **changes), tmp_path).text
        return float(re.search(r"up to ([\d.]+) GiB", text)[1])

    assert gib(save_steps=100) == 4 * 3 + 1
    assert gib(save_steps=100, snapshot_steps=10) == 4 * 3 + 1 + 4
    assert gib(save_steps=1) == 6 * 3 + 1
    assert gib(save_steps=100, optim="paged_adamw_8bit") == 4 * 1.5 + 1


def meta(size):
    return torch.nn.Parameter(torch.empty(size, device="meta"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_is_made_again(tiny_recipe, policy, tmp_path, text):
    problems = load_problems(tiny_recipe)
    first = preflight(tiny_recipe, problems, policy, runs=tmp_path)
    (file,) = (tmp_path / "preflights").iterdir()
    file.write_text(text)
    again = preflight(tiny_recipe, problems, policy, runs=tmp_path)
    again.numbers.pop("seconds"), first.numbers.pop("seconds")
    assert again == first


def test_its_draws_are_its_own(tiny_recipe, policy):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    problems = load_problems(tiny_recipe).train[:1]
    first, _ = sample_problems(policy, problems, tiny_recipe, group=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, _ = sample_problems(policy, problems, tiny_recipe, group=4)
    assert [c.ids for c in first] == [c.ids for c in again]
    other, _ = sample_problems(policy, problems, tiny_recipe, group=4, seed=1)
    assert [c.ids for c in first] != [c.ids for c in other]


@pytest.mark.slow
def test_it_changes_nothing_of_the_training(tiny_recipe, tmp_path):
    looked = train(tiny_recipe, runs=tmp_path / "looked")
    blind = train(tiny_recipe.replace(preflight_problems=0), runs=tmp_path / "blind")
    assert (tmp_path / "looked" / "preflights").is_dir()
    assert not (tmp_path / "blind" / "preflights").exists()
    name = "adapter_model.safetensors"
    assert (looked.adapter / name).read_bytes() == (blind.adapter / name).read_bytes()
    assert looked.completions == blind.completions


def found(recipe, policy, tmp_path, name):
    everything = preflight(recipe, load_problems(recipe), policy, runs=tmp_path).findings
    return next(finding for finding in everything if finding.name == name)


def test_what_is_said_of_gains_is_what_notebook_12_found(tiny_recipe, policy, tmp_path):
    rule = load_records("cpu")["12_when_does_it_work"]["values"]["rule"]
    right = [one["right"] for one in rule["held_back"].values()]
    told = found(tiny_recipe, policy, tmp_path, "gain").text
    assert told.startswith("no number taken before a training") is not rule["recommended"]
    assert f"was {Estimate(**rule['correlation']).text()}" in told
    assert f"right on {sum(right)}, as many as if no gain had been said" in told
    assert sum(one["measured"]["low"] <= 0 for one in rule["held_back"].values()) == sum(right)
    assert len(right) == 3


def test_a_model_without_an_end_token_is_a_fault(tiny_recipe, policy, tmp_path):
    policy.model.generation_config.eos_token_id = None
    policy.model.config.eos_token_id = None
    policy.tokenizer.eos_token = None
    assert found(tiny_recipe, policy, tmp_path, "end token").verdict == "fault"


def test_an_end_token_that_the_template_does_not_use_is_told(tiny_recipe, policy, tmp_path):
    policy.model.generation_config.eos_token_id = 50
    policy.tokenizer.eos_token = "<s>"  # as a base model's, beside the template of a chat
    finding = found(tiny_recipe, policy, tmp_path, "end token")
    assert (finding.verdict, "'<e>'" in finding.text) == ("warning", True), finding


def test_a_template_without_a_generation_prompt_is_told(tiny_recipe, policy, tmp_path):
    template = policy.tokenizer.chat_template
    policy.tokenizer.chat_template = template.partition("{% if add_generation_prompt")[0]
    assert found(tiny_recipe, policy, tmp_path, "prompt end").verdict == "warning"


PARTS = (
    "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}<e>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_template_that_loses_the_problem_is_a_fault(tiny_recipe, policy, tmp_path):
    template, policy.tokenizer.chat_template = policy.tokenizer.chat_template, PARTS
    finding = found(tiny_recipe, policy, tmp_path, "prompt text")
    assert finding.verdict == "fault"
    assert "loses the user message: '0+0='" in finding.text
    # It is mended in the model's folder and checked again.
    policy.tokenizer.chat_template = template
    again = preflight(tiny_recipe, load_problems(tiny_recipe), policy, runs=tmp_path)
    assert again.faults == []


def test_a_template_that_loses_the_problem_trains_nothing(tiny_model, tiny_recipe, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(PARTS)
    recipe = tiny_recipe.replace(model=str(folder), preflight_problems=0)
    with pytest.raises(InputError, match="the chat template loses the user message"):
        train(recipe, runs=tmp_path / "runs")


def rows(path, problems):
    lines = [json.dumps({"problem": problem, "answer": answer}) for problem, answer in problems]
    path.write_text("\n".join(lines))
    return str(path)


def test_what_data_brings_is_told(tiny_recipe, policy, tmp_path):
    problems = [(f"{a}+1=", a + 1) for a in range(6)]
    problems += [("6+1=<e><a>7", "the sum of it is 7"), ("7+1=", "see 1/0 in \\frac{")]
    recipe = tiny_recipe.replace(dataset=rows(tmp_path / "data.jsonl", problems))
    findings = preflight(recipe, load_problems(recipe), policy, runs=tmp_path).findings
    told = {finding.name: (finding.verdict, finding.text) for finding in findings}
    verdict, text = told["control tokens"]
    assert verdict == "warning"
    assert "1 of 8 problems hold control tokens" in text
    assert "data:7, holds '<e>' and '<a>'" in text
    verdict, text = told["answers"]
    assert verdict == "warning"
    assert "2 of 8 reference answers; the first, of data:7, is prose" in text
    assert told["prompt end"][0] == "ok"


def test_answers_that_stand_in_their_questions_are_told(tiny_recipe, policy, tmp_path):
    problems = [(f"{a}*0=", 0) for a in range(3)] + [(f"{a}*6=", a * 6) for a in range(2, 7)]
    recipe = tiny_recipe.replace(dataset=rows(tmp_path / "data.jsonl", problems))
    echoes = found(recipe, policy, tmp_path, "echoes")
    assert echoes.verdict == "warning"
    assert "in 3 of 8 problems the answer is a number of the question" in echoes.text


@pytest.mark.parametrize("extraction", ["last_number", "whole"])
def test_labels_where_numbers_are_looked_for_are_told(tiny_recipe, policy, tmp_path, extraction):
    problems = [(f"{a}+1=", "odd" if a % 2 else 4) for a in range(6)]
    dataset = rows(tmp_path / "data.jsonl", problems)
    recipe = tiny_recipe.replace(dataset=dataset, answer_extraction=extraction)
    findings = preflight(recipe, load_problems(recipe), policy, runs=tmp_path).findings
    told = [finding.text for finding in findings if finding.name == "answers"]
    assert bool(told) is (extraction == "last_number")
    assert all("3 of 6 reference answers have no number; the first, of data:" in t for t in told)


@pytest.mark.parametrize(
    ("reward", "verdict"), [("accuracy", "fault"), ("self_certainty", "warning")]
)
def test_a_reward_that_can_only_be_0_is_a_fault(tiny_recipe, policy, tmp_path, reward, verdict):
    problems = [(f"{a}+1=", "the sum of these two is 7") for a in range(6)]
    dataset = rows(tmp_path / "data.jsonl", problems)
    recipe = tiny_recipe.replace(dataset=dataset, rewards=(reward,), preflight_problems=2)
    assert found(recipe, policy, tmp_path, "answers").verdict == verdict
    other = recipe.replace(rewards=("accuracy",))  # what the first one kept does not hide it
    assert found(other, policy, tmp_path, "answers").verdict == "fault"


def test_rows_that_are_left_out_are_told_each_time(tiny_recipe, policy, tmp_path):
    problems = [(f"{a}+1=", a + 1) for a in range(6)]
    recipe = tiny_recipe.replace(dataset=rows(tmp_path / "data.jsonl", [*problems, ("5+1=", 7)]))
    left_out = found(recipe, policy, tmp_path, "left out")
    assert left_out.verdict == "warning"
    assert left_out.text.startswith("1 of 6 prompts have several answers")
    assert left_out.text.endswith("'6' in data:6, '7' in data:7")
    rows(tmp_path / "data.jsonl", problems)  # the same problems, of which a finding was kept
    findings = preflight(recipe, load_problems(recipe), policy, runs=tmp_path).findings
    assert "left out" not in {finding.name for finding in findings}


def test_clean_data_is_not_mentioned(tiny_recipe, policy, tmp_path):
    findings = preflight(tiny_recipe, load_problems(tiny_recipe), policy, runs=tmp_path).findings
    told = {finding.name for finding in findings}
    assert not told & {"control tokens", "answers", "prompt text"}


def test_other_files_in_the_models_folder_are_looked_at_anew(tiny_model, tiny_recipe, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    recipe = tiny_recipe.replace(model=str(folder), preflight_problems=2)
    problems = load_problems(recipe)
    for _ in range(2):
        preflight(recipe, problems, load_policy(recipe), runs=tmp_path / "runs")
        template = folder / "chat_template.jinja"
        template.write_text("<s>" + template.read_text())
    assert len(list((tmp_path / "runs" / "preflights").iterdir())) == 2


def test_without_answers_the_plurality_counts(tiny_recipe, policy, tmp_path):
    recipe = tiny_recipe.replace(answer_column=None)
    result = preflight(recipe, load_problems(recipe), policy, runs=tmp_path)
    assert result.numbers["against"] == "the plurality answer"
    assert "accuracy" not in result.numbers


@pytest.mark.slow
def test_a_fault_ends_a_training_before_it_begins(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("intuitor_lib.training.readiness.end_tokens", lambda *policy: set())
    with pytest.raises(InputError, match="end token: the model names no end token"):
        train(tiny_recipe, runs=tmp_path)


def test_the_command_prints_what_was_found(tiny_recipe, tmp_path, capsys):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tiny_recipe.to_dict()))
    assert main(["preflight", str(path), "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "memory" in out
    assert "signal" in out
