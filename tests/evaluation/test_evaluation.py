"""Measurements and evaluations: what was generated, graded, scored, kept and taken up again."""

import collections
import functools
import json
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from damage import flip
from policies import move_adapter
from toys import toy

from intuitor_lib.certainty.completions import completion_log_probs, score_completions
from intuitor_lib.evaluation.benchmarks.benchmarks import BENCHMARKS, get_benchmark
from intuitor_lib.evaluation.benchmarks.graders import MathGrader, ValueGrader
from intuitor_lib.evaluation.evaluation import _benchmark_spec, _votes, evaluate
from intuitor_lib.evaluation.scoreboard import evaluation_table, score
from intuitor_lib.evaluation.subjects import Subject
from intuitor_lib.grading.answers import extract_answer
from intuitor_lib.grading.sandbox.confine import protections
from intuitor_lib.policy.loading import Policy, load_model, load_policy
from intuitor_lib.problems.problems import Problem
from intuitor_lib.problems.prompts import conversation, prompt_token_ids
from intuitor_lib.recipe.constants import SMOLLM2, InputError
from intuitor_lib.rollouts.generation import generate
from intuitor_lib.store.files import record_checksums, write_json
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.store.stored import DamagedError
from intuitor_lib.training.samples import sample_problems
from intuitor_lib.training.training import train

PROBLEMS = [Problem(f"{i}+1=", str(i + 1), str(i), "test") for i in (1, 22, 333)]


@pytest.fixture
def policy(tiny_recipe):
    policy = load_policy(tiny_recipe)
    move_adapter(policy.model)
    return policy


@pytest.fixture
def prompt_ids(policy, tiny_recipe):
    conversations = [conversation(p.prompt, tiny_recipe) for p in PROBLEMS]
    return prompt_token_ids(policy.tokenizer, conversations)


def test_data_that_cannot_be_graded_is_told_first(policy, tmp_path, capsys, monkeypatch):
    rows = [
        {"question": "1+1=", "answer": "2"},
        {"question": "1+<e><a>2=", "answer": "the sum of these two is 3"},
    ]
    (tmp_path / "gsm8k_test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"benchmarks": tmp_path, "runs": tmp_path / "runs", "max_new_tokens": 2}
    settings["system_prompt"] = None
    policy.tokenizer.chat_template = "{{ strftime_now('%S') }}" + policy.tokenizer.chat_template
    record = evaluate(policy, "gsm8k", **settings)
    told = capsys.readouterr().err
    assert "gsm8k: hardly a completion can match 1 of 2 reference answers" in told
    assert "gsm8k: 1 of 2 problems hold control tokens" in told
    assert record.environment["prompt_date"] == "2025-05-26"
    policy.tokenizer.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(InputError, match="the chat template loses the user message: '1\\+1='"):
        evaluate(policy, "gsm8k", seed=1, **settings)


def test_greedy_is_the_likeliest_token_after_token(policy, prompt_ids):
    completions = generate(policy, prompt_ids, max_new_tokens=6, temperature=0, batch_size=2)
    policy.model.eval()
    for prompt, (completion, *_) in zip(prompt_ids, completions, strict=True):
        ids = list(prompt)
        for token in completion:
            with torch.no_grad():
                assert policy.model(torch.tensor([ids])).logits[0, -1].argmax() == token
            ids.append(token)
        ends = policy.tokenizer.eos_token_id
        assert len(completion) == 6 or completion[-1] == ends
        assert ends not in completion[:-1]


def test_sampling_repeats_by_seed_and_leaves_the_callers_randomness(policy, prompt_ids):
    def sample(seed):
        made = generate(policy, prompt_ids, max_new_tokens=6, temperature=1.0, seed=seed)
        return [completion.ids for completion in made]

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sample(1)
    assert torch.equal(torch.rand(3), expected)
    assert first == sample(1)
    assert first != sample(2)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_models_left_to_transformers_are_measured_alike(
    temperature, policy, prompt_ids, monkeypatch
):
    settings = {"max_new_tokens": 6, "temperature": temperature, "stop": ["q"], "batch_size": 2}
    ours = generate(policy, prompt_ids, **settings)
    monkeypatch.setattr(
        "intuitor_lib.rollouts.generation.reason_against", lambda model: "not this one"
    )
    theirs = generate(policy, prompt_ids, **settings)
    unscored = generate(policy, prompt_ids, **settings, certainty=False)
    assert [c.ids for c in unscored] == [c.ids for c in theirs]
    assert not any(len(value) for c in unscored for value in c[1:])
    if temperature == 0:
        assert [c.ids for c in theirs] == [c.ids for c in ours]
    made = [c.ids for c in theirs]
    scores = score_completions(policy.model, prompt_ids, made).tolist()
    assert [c.self_certainty.mean().item() for c in theirs] == pytest.approx(scores, rel=1e-5)
    log_probs = completion_log_probs(policy.model, prompt_ids, made, temperature=temperature or 1.0)
    for completion, expected in zip(theirs, log_probs, strict=True):
        torch.testing.assert_close(completion.log_probs, expected)


@pytest.mark.parametrize("pad", ["<p>", None], ids=["padding of its own", "padded with its end"])
@pytest.mark.parametrize("ours", [True, False], ids=["sampled", "by transformers"])
def test_a_completion_ends_at_the_end_token_of_model_or_tokenizer(
    pad, ours, tiny_model, prompt_ids, monkeypatch
):
    """And at a text to stop at: each of the three ends one completion at its third token."""
    policy = load_model(str(tiny_model), dtype="float32")
    model, tokenizer = policy
    settings = {"max_new_tokens": 6, "temperature": 0, "certainty": False}
    model.generation_config.eos_token_id = []
    free = [made.ids for made in generate(policy, prompt_ids, **settings)]
    text, model.generation_config.eos_token_id, end = (ids[2] for ids in free)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.pad_token = pad or tokenizer.eos_token
    if not ours:
        monkeypatch.setattr("intuitor_lib.rollouts.generation.reason_against", lambda model: "no")
    made = generate(policy, prompt_ids, **settings, stop=[tokenizer.decode(text)])
    assert [completion.ids for completion in made] == [ids[:3] for ids in free]


def test_held_out_and_evaluated_completions_end_alike(policy, tiny_recipe, tmp_path):
    """The tokenizer's end token counts beside the model's, as in TRL."""
    end = policy.tokenizer.eos_token_id
    policy.model.generation_config.eos_token_id = 50
    with torch.no_grad():  # nothing but the tokenizer's end token is ever drawn
        head = policy.model.get_output_embeddings()
        head.bias = torch.nn.Parameter(torch.full((head.weight.shape[0],), -1e4))
        head.bias[end] = 0.0
    held_out, _ = sample_problems(policy, PROBLEMS, tiny_recipe)
    assert [made.ids for made in held_out] == [[end]] * 3
    record = evaluate(policy, toy(max_new_tokens=1), runs=tmp_path)
    assert not any(row["clipped"] for row in record.rows)


def test_what_cannot_be_scored_can_be_generated(policy, prompt_ids):
    tuned = peft.get_peft_model(
        policy.model.unload(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    settings = {"max_new_tokens": 3, "temperature": 0}
    made = generate(Policy(tuned, policy.tokenizer), prompt_ids, **settings, certainty=False)
    assert all(completion.ids for completion in made)
    with pytest.raises(ValueError, match="virtual tokens"):
        generate(Policy(tuned, policy.tokenizer), prompt_ids, **settings)


def test_the_policys_modes_come_back(policy, prompt_ids):
    policy.model.train()
    generate(policy, prompt_ids, max_new_tokens=2, temperature=0)
    assert all(module.training for module in policy.model.modules())


# --- evaluate -------------------------------------------------------------------------------


class Interrupting(MathGrader):
    """Grades `left` batches, then is interrupted as by Ctrl-C."""

    left = 2

    def grade(self, items, texts):
        Interrupting.left -= 1
        if Interrupting.left < 0:
            raise KeyboardInterrupt
        return super().grade(items, texts)


SAMPLED = {
    **{"temperature": 1.0, "num_samples": 2, "batch_size": 3, "seed": 5},
    "dtype": "float32",  # "auto" is chosen by timing, anew at each load
}


def test_each_completion_is_kept_with_its_verdict(tiny_model, tmp_path):
    record = evaluate(str(tiny_model), toy(), batch_size=3, dtype="float32", runs=tmp_path)
    rows = record.rows
    assert record.finished
    assert [row["id"] for row in rows] == [f"sum/{i}" for i in range(7)]
    policy = load_model(str(tiny_model), dtype="float32")
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    prompt_ids = prompt_token_ids(policy.tokenizer, prompts)
    made = generate(policy, prompt_ids, max_new_tokens=6, temperature=0, batch_size=1)
    completions = [completion.ids for completion in made]
    scores = score_completions(policy.model, prompt_ids, completions).tolist()
    for i, (row, ids, certainty) in enumerate(zip(rows, completions, scores, strict=True)):
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        assert row["completion"] == text
        assert row["tokens"] == len(ids)
        assert row["clipped"] == (policy.tokenizer.eos_token_id not in ids)
        assert row["self_certainty"] == pytest.approx(certainty, abs=1e-4)
        assert row["answer"] == extract_answer(text, "last_number")
        assert row["correct"] == (row["answer"] == str(i))
        assert row["reason"] in ("boxed", "last number", "no answer")
        assert "trained_on" not in row
    # The longest prompts go first, so that what does not fit in memory fails at once.
    lines = (record.path / "items.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line)["prompt"] for line in lines]
    assert [len(p) for p in written] == sorted(map(len, written), reverse=True)
    facts = record.environment
    assert (facts["device"], facts["quantization"]) == ("cpu", "none")
    assert facts["packages"]["torch"]


def test_asked_again_nothing_is_loaded_and_other_settings_are_another(
    tiny_model, tmp_path, monkeypatch
):
    ask = functools.partial(evaluate, str(tiny_model), runs=tmp_path)
    first = ask(toy(), seed=1, n=4)
    monkeypatch.setattr("intuitor_lib.evaluation.subjects.load_model", None)
    assert ask(toy(), seed=1, n=4).path == first.path
    assert ask(toy(), seed=1, n=4, batch_size=1).path == first.path
    others = [
        {"seed": 2, "n": 4},
        {"seed": 1, "n": 5},
        {"seed": 1, "n": 4, "max_new_tokens": 5},
        {"seed": 1, "n": 4, "temperature": 0.5},
        {"seed": 1, "n": 4, "system_prompt": "Hush."},
        {"seed": 1, "n": 4, "quantization": "nf4"},
        {"seed": 1, "n": 4, "certainty": False},
    ]
    for other in others:
        with pytest.raises(TypeError):  # it would have to load the policy
            ask(toy(), **other)
    assert len(list(RunStore(tmp_path).evaluations())) == 1 + len(others)


def test_checksums_that_a_kill_prevented_are_recorded(tiny_model, tmp_path):
    record = evaluate(str(tiny_model), toy(), n=3, runs=tmp_path)
    assert record.verify() == {}
    (record.path / "SHA256SUMS").unlink()
    assert record.verify().keys() == {"SHA256SUMS"}
    assert evaluate(str(tiny_model), toy(), n=3, runs=tmp_path).has_checksums
    (record.path / "evaluation.json").write_text("{")
    with pytest.raises(DamagedError, match=r"evaluation\.json"):
        _ = record.spec
    (record.path / "SHA256SUMS").unlink()
    assert record.verify().keys() == {"evaluation.json"}
    with (record.path / "items.jsonl").open("a") as file:
        file.write("{\n")
    assert record.verify().keys() == {"evaluation.json", "items.jsonl"}


def test_n_items_are_drawn_by_the_seed(tiny_model, tmp_path):
    chosen = {
        seed: [
            row["id"]
            for row in evaluate(str(tiny_model), toy(), n=3, seed=seed, runs=tmp_path).rows
        ]
        for seed in (0, 1, 2)
    }
    assert all(len(set(ids)) == 3 for ids in chosen.values())
    assert len({tuple(ids) for ids in chosen.values()}) > 1
    with pytest.raises(InputError, match="has 7 items, not 8"):
        evaluate(str(tiny_model), toy(), n=8, runs=tmp_path)


@pytest.mark.parametrize("left", [0, 1, 2, 4])
def test_an_interrupted_evaluation_ends_like_another(left, tiny_model, tmp_path):
    whole = evaluate(str(tiny_model), toy(), runs=tmp_path / "whole", **SAMPLED)
    Interrupting.left = left
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(tiny_model), toy(grader=Interrupting()), runs=tmp_path / "cut", **SAMPLED)
    (cut,) = RunStore(tmp_path / "cut").evaluations()
    assert len(cut.rows) == 3 * left
    assert not cut.finished
    # Without a batch size it goes on with the one it began with, and makes only what is missing.
    Interrupting.left = 5
    again = evaluate(
        str(tiny_model),
        toy(grader=Interrupting()),
        runs=tmp_path / "cut",
        **{**SAMPLED, "batch_size": None},
    )
    assert Interrupting.left == left
    assert again.path == cut.path
    assert again.rows == whole.rows


def test_an_interrupted_evaluation_goes_on_in_its_dtype(tiny_model, tmp_path, monkeypatch):
    """Another process may choose another one for "auto"."""
    chosen = [torch.bfloat16]
    monkeypatch.setattr(
        "intuitor_lib.policy.loading.compute_dtype",
        lambda name, device: chosen[0] if name == "auto" else getattr(torch, name),
    )
    ask = functools.partial(evaluate, str(tiny_model), runs=tmp_path, **SAMPLED | {"dtype": None})
    Interrupting.left = 1
    with pytest.raises(KeyboardInterrupt):
        ask(toy(grader=Interrupting()))
    chosen[0], Interrupting.left = torch.float32, 20
    assert ask(toy(grader=Interrupting())).environment["compute_dtype"] == "bfloat16"
    assert ask(toy(name="new", grader=Interrupting())).environment["compute_dtype"] == "float32"


def test_an_interrupted_evaluation_goes_on_at_its_commit(tiny_model, tmp_path, monkeypatch):
    """The hub may have another one by then."""
    newest, loaded = ["old"], []

    def load(revision=None):
        loaded.append(revision)
        return load_model(str(tiny_model), dtype="float32")

    monkeypatch.setattr(
        "intuitor_lib.evaluation.evaluation.cached_commit",
        lambda source: source.revision or newest[0],
    )
    spec = {"model": "org/model", "revision": None, "dtype": "float32", "_name": "model"}
    ask = functools.partial(evaluate, Subject(spec, load), runs=tmp_path, batch_size=3)
    Interrupting.left = 1
    with pytest.raises(KeyboardInterrupt):
        ask(toy(grader=Interrupting()))
    newest[0], Interrupting.left = "new", 20
    assert ask(toy(grader=Interrupting())).environment["commit"] == "old"
    assert ask(toy(name="other", grader=Interrupting())).environment["commit"] == "new"
    assert loaded == [None, "old", None]


def test_every_batch_draws_anew(tiny_model, tmp_path):
    settings = {"temperature": 1.0, "num_samples": 6, "batch_size": 2, "n": 1}
    rows = evaluate(str(tiny_model), toy(), runs=tmp_path, **settings).rows
    pairs = {(rows[i]["completion"], rows[i + 1]["completion"]) for i in (0, 2, 4)}
    assert len(pairs) > 1


def test_the_first_of_the_plurality_is_what_is_voted_for():
    def rows(item, *answers):
        return [{"id": item, "answer": a, "correct": a == "2"} for a in answers]

    asked = [*rows("a", "2", "3", "3"), *rows("b", "3", "2", "2.0"), *rows("c", None, None)]
    assert _votes(asked, toy()) == [
        {"id": "a", "answer": "3", "correct": False, "votes": 2, "completions": 3},
        {"id": "b", "answer": "2", "correct": True, "votes": 2, "completions": 3},
        {"id": "c", "answer": None, "correct": False, "votes": 0, "completions": 2},
    ]
    assert _votes(asked, get_benchmark("humaneval")) == []


def test_a_torn_line_costs_its_batch_only(tiny_model, tmp_path):
    record = evaluate(str(tiny_model), toy(), runs=tmp_path, **SAMPLED)
    rows, file = record.rows, record.path / "items.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:7]) + lines[7][:40])
    (record.path / "SHA256SUMS").unlink()  # which only a finished one has
    assert not record.finished
    evaluate(str(tiny_model), toy(), runs=tmp_path, **SAMPLED)
    assert record.finished
    assert record.rows == rows
    assert file.read_bytes().splitlines(keepends=True)[:7] == lines[:7]


def test_an_evaluation_of_other_weights_of_the_same_run_is_refused(tiny_recipe, tmp_path):
    run = train(tiny_recipe, runs=tmp_path)
    record = evaluate(run, toy(), runs=tmp_path)
    config = run.adapter / "adapter_config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    record_checksums(run.path)
    assert evaluate(run, toy(), runs=tmp_path).path == record.path  # the weights are the same
    flip(run.adapter / "adapter_model.safetensors")  # as if the run was trained again elsewhere
    record_checksums(run.path)
    with pytest.raises(InputError, match=f"{record.id} is of other weights .* Remove the folder"):
        evaluate(run, toy(), runs=tmp_path)
    # Earlier versions did not write which weights they evaluated.
    spec = record.spec
    del spec["policy"]["_weights"]
    write_json(record.path / "evaluation.json", spec)
    (record.path / "SHA256SUMS").unlink()
    assert evaluate(run, toy(), runs=tmp_path).path == record.path


def test_a_run_knows_what_it_was_trained_on(tiny_recipe, tmp_path):
    run = train(tiny_recipe, runs=tmp_path)
    rows = evaluate(run, toy(), runs=tmp_path).rows
    # The file has a + b for a < 6 and b < 4.
    assert [row["trained_on"] for row in rows] == [True, True, False, False, False, False, False]
    table = str(evaluation_table(RunStore(tmp_path).evaluations()))
    assert ": 2" in table
    assert "among the training problems" in table


def test_a_text_that_stops_is_the_end(tiny_model, tmp_path):
    free = evaluate(str(tiny_model), toy(max_new_tokens=24), runs=tmp_path)
    letters = collections.Counter(c for row in free.rows for c in row["completion"][1:])
    stop = letters.most_common(1)[0][0]
    stopped = evaluate(
        str(tiny_model), toy(name="stopping", max_new_tokens=24, stop=(stop,)), runs=tmp_path
    )
    assert any(stop in row["completion"] for row in free.rows)
    for before, after in zip(free.rows, stopped.rows, strict=True):
        assert after["completion"] == before["completion"].partition(stop)[0]
        assert after["tokens"] <= before["tokens"]
        if stop in before["completion"]:
            assert not after["clipped"]
            assert after["tokens"] == len(after["completion"]) + 1


def test_without_a_chat_the_prompt_is_the_text(tiny_model, tmp_path):
    record = evaluate(str(tiny_model), toy(chat=False), runs=tmp_path, system_prompt="no")
    assert record.spec["decoding"]["system_prompt"] is None
    policy = load_model(str(tiny_model))
    prompt_ids = policy.tokenizer([row["prompt"] for row in record.rows])["input_ids"]
    made = generate(policy, prompt_ids, max_new_tokens=6, temperature=0, batch_size=1)
    texts = policy.tokenizer.batch_decode([c.ids for c in made], skip_special_tokens=True)
    assert [row["completion"] for row in record.rows] == texts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 2}, "several at a temperature above 0"),
        ({"temperature": -1.0}, "at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": -3}, "batch_size=-3"),
        ({"max_new_tokens": 300}, "exceed the 256 tokens of the model: lower max_new_tokens to 24"),
        ({"benchmark": "humaneval", "n": 1}, "tokens of the model: choose another model"),
        ({"n": 0}, "n=0 items"),
        ({"benchmark": "gsm9k"}, "unknown benchmark 'gsm9k': choose from gsm8k"),
        (
            {"extraction": "last"},
            "extraction='last': choose from boxed, alone, whole, last_number, harness",
        ),
        ({"benchmark": "humaneval", "extraction": "boxed"}, "with humaneval: only answers to math"),
        ({"benchmarks": "/nowhere"}, "'/nowhere' is no folder"),
    ],
)
def test_bad_requests_are_refused(settings, message, tiny_model, tmp_path):
    settings = {"benchmark": toy(), "runs": tmp_path, **settings}
    with pytest.raises(InputError, match=message):
        evaluate(str(tiny_model), settings.pop("benchmark"), **settings)


def test_another_extraction_is_another_evaluation(tiny_model, tmp_path):
    settings = {"n": 3, "runs": tmp_path, "certainty": False}
    plain, harness, again = (
        evaluate(str(tiny_model), toy(), **settings, extraction=extraction)
        for extraction in (None, "harness", "harness")
    )
    assert plain.path != harness.path == again.path
    assert "extraction" not in plain.spec["benchmark"]
    assert harness.spec["benchmark"]["extraction"] == "harness"


def test_another_chat_stop_or_grader_under_the_same_name_is_another_benchmark():
    def key(benchmark, /, **changes):
        spec = _benchmark_spec(replace(get_benchmark(benchmark), **changes), [], 0)
        return {name: value for name, value in spec.items() if name[0] != "_"}

    for name in BENCHMARKS:  # as it was stored before there was a difference
        assert not {"chat", "stop", "grader"} & key(name).keys()
    assert key("mmlu_pro", chat=True)["chat"] is True
    assert key("chain_sum", stop=("\n",))["stop"] == ["\n"]
    assert key("mmlu_pro", grader=ValueGrader())["grader"] == "ValueGrader"
    assert key("chain_sum", name="own", chat=False)["chat"] is False
    assert key("chain_sum", name="own") == key("chain_sum") | {"name": "own"}


def test_scores_and_majorities_of_samples(tiny_model, tmp_path):
    record = evaluate(str(tiny_model), toy(), runs=tmp_path, temperature=1.0, num_samples=4, seed=2)
    scores = score(record)
    by_item = collections.defaultdict(list)
    for row in record.rows:
        by_item[row["id"]].append(row)
    assert scores["pass@4"].value == pytest.approx(
        np.mean([any(row["correct"] for row in rows) for rows in by_item.values()])
    )
    assert record.votes
    for vote in record.votes:
        answers = [row["answer"] for row in by_item[vote["id"]] if row["answer"] is not None]
        if not answers:
            assert vote["answer"] is None
            assert not vote["correct"]
            continue
        # Only plain numbers here, so equal is equal as text but for signs and zeros.
        counts = collections.Counter(float(answer.replace(",", "")) for answer in answers)
        assert vote["votes"] == max(counts.values())
        assert counts[float(vote["answer"].replace(",", ""))] == vote["votes"]
        assert vote["completions"] == 4
    assert scores["majority@4"].n == 7


@pytest.fixture(scope="module")
def embedded():
    return load_model(SMOLLM2)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_end_to_end_on_the_embedded_model(
    name, embedded, benchmark_files, tmp_path
):
    benchmark = get_benchmark(name)
    if benchmark.grader.runs_code and protections().mode == "none":
        pytest.skip("programs cannot be confined on this machine")
    n = None if name in ("math500", "cruxeval", "mmlu_pro") else 2  # of which there is one row
    record = evaluate(
        embedded, name, n=n, max_new_tokens=12, benchmarks=benchmark_files, runs=tmp_path
    )
    rows = record.rows
    assert len(rows) == record.spec["benchmark"]["n"] == (n or 1)
    for row in rows:
        assert row["self_certainty"] > 0
        assert 0 < row["tokens"] <= 12
        assert row["reason"]
        assert row["correct"] is None if name == "alpaca_eval" else isinstance(row["correct"], bool)
    estimates = score(record)
    assert ("accuracy" in estimates) == (name != "alpaca_eval")
    if name == "alpaca_eval":
        outputs = json.loads((record.path / "model_outputs.json").read_text(encoding="utf-8"))
        assert {o["instruction"] for o in outputs} == {row["prompt"] for row in rows}
        assert {o["dataset"] for o in outputs} == {"helpful_base", "koala"}
        assert cells_of(record)["score"] == "not judged"


def cells_of(record):
    table = evaluation_table([record])
    return dict(zip(table.header, table.rows[0], strict=True))
