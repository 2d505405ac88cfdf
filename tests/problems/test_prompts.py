import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from intuitor_lib.problems.problems import Problem
from intuitor_lib.problems.prompts import (
    TEMPLATE_DATE,
    PromptError,
    control_tokens,
    conversation,
    fit_prompts,
    prompt_date,
    prompt_token_ids,
    require_chat_template,
    to_dataset,
)
from intuitor_lib.recipe import InputError
from intuitor_lib.recipe.recipe import Recipe

WORDS = ["<unk>", "<user>", "<system>", "<assistant>", "<end>", "<think>", "a", "b", "c"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{% if thinking %} <think>{% endif %}"
)


@pytest.fixture
def tokenizer():
    """One token a word; a conversation of one message costs its words + 3 tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    fast = Tokenizer(model)
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<unk>")
    wrapped.chat_template = TEMPLATE
    return wrapped


def recipe(**changes):
    return Recipe(**({"system_prompt": None} | changes))


def problems(*prompts):
    return [Problem(prompt, None, str(i), "test") for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("system_prompt", "roles"),
    [(None, ["user"]), ("", ["system", "user"]), ("be brief", ["system", "user"])],
)
def test_system_message_is_left_out_only_when_none(system_prompt, roles):
    messages = conversation("a", recipe(system_prompt=system_prompt))
    assert [message["role"] for message in messages] == roles
    assert messages[0]["content"] == ("a" if system_prompt is None else system_prompt)
    assert messages[-1] == {"role": "user", "content": "a"}


@pytest.mark.parametrize("prompt", ["{x} {} \\boxed{1}", "{prompt} twice {prompt}", "%s $1 \\1"])
def test_template_takes_any_problem_as_it_is(prompt):
    filled = conversation(prompt, recipe(prompt_template="Q {0}: {prompt} Answer briefly."))
    assert filled == [{"role": "user", "content": f"Q {{0}}: {prompt} Answer briefly."}]


def test_token_ids_hold_the_template_and_the_generation_prompt(tokenizer):
    conversations = [conversation("a b", recipe(system_prompt="c")), conversation("b", recipe())]
    ids = prompt_token_ids(tokenizer, conversations)
    words = [" ".join(WORDS[i] for i in row) for row in ids]
    assert words == ["<system> c <end> <user> a b <end> <assistant>", "<user> b <end> <assistant>"]
    assert prompt_token_ids(tokenizer, []) == []


def test_token_ids_pass_settings_to_the_template(tokenizer):
    [ids] = prompt_token_ids(tokenizer, [conversation("a", recipe())], thinking=True)
    assert WORDS[ids[-1]] == "<think>"


@pytest.mark.parametrize("template", [None, ""])
def test_a_tokenizer_without_chat_template_is_refused(tokenizer, template):
    require_chat_template(tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=r"no chat template.*use an instruct model"):
        require_chat_template(tokenizer)
    with pytest.raises(ValueError, match="no chat template"):
        prompt_token_ids(tokenizer, [conversation("a", recipe())])


def test_a_template_without_system_role_names_the_remedy(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ValueError, match=r"system, user: no system role.*system_prompt=null"):
        prompt_token_ids(tokenizer, [conversation("a", recipe(system_prompt="c"))])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ messages[0]['content'] + 1 }}", "user: can only concatenate str"),
        ({"rag": "{{ messages[0]['content'] }}"}, "user: .*multiple chat templates"),
        ("{{ raise_exception('no user') }}", "user: no user; choose another model, or mend it"),
    ],
)
def test_a_template_that_fails_in_any_way_is_refused(tokenizer, template, says):
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=says):
        prompt_token_ids(tokenizer, [conversation("a", recipe())])


ROLES = "{% for m in messages %}{{ '<' + m['role'] + '>' }}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        # For messages of several parts.
        (ROLES + "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}", "system"),
        # The first message, the last one, the user's, all but the user's.
        ("{{ messages[0]['content'] }}", "loses the user message: 'first'"),
        ("{{ messages[-1]['content'] }}", "system message: 'a b'.* or set system_prompt=null"),
        (ROLES + "{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "system"),
        (ROLES + "{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}", "user"),
        # A part of it, or another text.
        (ROLES + "{{ m['content'][:4] }}{% endfor %}", "user message: 'first'"),
        (ROLES + "{{ m['content'] | upper }}{% endfor %}", "system message"),
    ],
)
def test_a_template_that_loses_a_message_is_refused(tokenizer, template, says):
    tokenizer.chat_template = template
    given = [conversation(text, recipe(system_prompt="a b")) for text in ("first", "second")]
    with pytest.raises(PromptError, match=says):
        prompt_token_ids(tokenizer, given)
    with pytest.raises(PromptError, match=says):
        fit_prompts(problems("first", "second"), recipe(system_prompt="a b"), tokenizer)


def test_different_problems_must_have_different_prompts(tokenizer):
    """Each problem is in the prompt, by chance: in the system prompt."""
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    given = [conversation(text, recipe(system_prompt="a b c")) for text in ("a", "b")]
    prompt_token_ids(tokenizer, [given[0], given[0]])
    with pytest.raises(PromptError, match="the same prompt, 'a b c', of different problems"):
        prompt_token_ids(tokenizer, given)


@pytest.mark.parametrize(
    "content", ["{{ m['content'] | trim }}", "{{ m['content'] | tojson }}", "{{ m.content }}"]
)
def test_templates_that_only_trim_or_quote_are_fine(tokenizer, content):
    tokenizer.chat_template = ROLES + content + "{% endfor %}"
    given = [conversation(' two\n lines, "quoted" é ', recipe(system_prompt=""))]
    assert len(prompt_token_ids(tokenizer, given)) == 1


DATED = [
    "{{ strftime_now('%d %b %Y %S') }}",
    "{%- if strftime_now is defined %}{%- set date = strftime_now('%Y-%m-%d %S %f') %}"
    "{%- else %}{%- set date = 'x' %}{%- endif %}{{ date }}",
    "\n  {% macro head() %}{{ strftime_now(format='%A %-d. %H:%M:%S') }}{% endmacro %}{{ head() }}",
]


@pytest.mark.parametrize("dated", DATED)
def test_the_date_of_a_prompt_is_the_same_on_every_day(tokenizer, dated, monkeypatch):
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        day = 1

        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2026, 1, cls.day, 1, 2, 3)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    tokenizer.chat_template = dated + TEMPLATE
    messages = conversation("a", recipe())
    chat_template_utils._compile_jinja_template.cache_clear()
    fresh = tokenizer.apply_chat_template(messages, tokenize=False)
    require_chat_template(tokenizer)
    rendered = []
    for Clock.day in (1, 2):
        rendered.append(tokenizer.apply_chat_template(messages, tokenize=False))
        require_chat_template(tokenizer)
    assert rendered[0] == rendered[1] != fresh
    # Only the date differs from what transformers writes on that day.
    monkeypatch.setattr(Clock, "now", classmethod(lambda cls: TEMPLATE_DATE))
    tokenizer.chat_template = dated + TEMPLATE
    assert tokenizer.apply_chat_template(messages, tokenize=False) == rendered[0]
    assert prompt_date(tokenizer) == "2025-05-26"


def test_templates_without_a_date_stay_as_they_are(tokenizer):
    require_chat_template(tokenizer)
    assert tokenizer.chat_template == TEMPLATE
    assert prompt_date(tokenizer) is None


def test_control_tokens_in_problems_are_counted(tokenizer):
    from transformers import AddedToken

    tokenizer.add_special_tokens({"eos_token": "<eos>"})
    tokenizer.add_tokens([AddedToken("<end>"), AddedToken("<td>"), AddedToken("user")])
    tokenizer.add_tokens([AddedToken("\n")])
    clean = {"0": "a\nb <td> user", "1": "< end > <en d>"}
    assert control_tokens(tokenizer, clean) is None
    found = control_tokens(tokenizer, {**clean, "2": "a <eos> b <end>", "3": "x<end>y"})
    assert "2 of 4 problems hold control tokens" in found
    assert "the first, 2, holds '<end>' and '<eos>'" in found


def test_prompts_up_to_the_limit_are_kept_and_longer_ones_dropped(tokenizer):
    given = problems("a", "a b", "a b c", "a b c a")
    kept, dropped = fit_prompts(given, recipe(max_prompt_length=6), tokenizer)
    assert kept == given[:3]
    assert dropped == given[3:]


def test_the_system_prompt_counts(tokenizer):
    given = problems("a", "a b")
    kept, _ = fit_prompts(given, recipe(max_prompt_length=7, system_prompt="c"), tokenizer)
    assert kept == given[:1]


def test_over_long_prompts_are_refused_on_request(tokenizer):
    strict = recipe(max_prompt_length=5, over_long_prompts="refuse")
    given = problems("a", "a b c", "a b c a")
    with pytest.raises(ValueError, match=r"2 of 3 prompts exceed max_prompt_length=5.* with 7"):
        fit_prompts(given, strict, tokenizer)
    assert fit_prompts(given[:1], strict, tokenizer) == (given[:1], [])


def test_no_prompt_left_is_an_error(tokenizer):
    with pytest.raises(ValueError, match=r"all 2 prompts exceed .*=3 tokens, the shortest with 4"):
        fit_prompts(problems("a", "a b"), recipe(max_prompt_length=3), tokenizer)
    assert fit_prompts([], recipe(), tokenizer) == ([], [])


@pytest.mark.parametrize("answers", [["1", None], [None, None]])
def test_dataset_is_what_trl_reads(answers):
    given = [Problem(f"q{i}", a, f"id{i}", "test") for i, a in enumerate(answers)]
    dataset = to_dataset(given, recipe(system_prompt="s"))
    assert dataset.column_names == ["prompt", "answer", "id", "source"]
    assert [row["prompt"] for row in dataset] == [
        [{"role": "system", "content": "s"}, {"role": "user", "content": p.prompt}] for p in given
    ]
    assert dataset["answer"][:] == answers
    assert dataset["id"][:] == ["id0", "id1"]
    assert dataset.features["answer"].dtype == "string"


def test_importing_loads_neither_torch_nor_datasets():
    program = (
        "import sys, intuitor_lib.problems.prompts\n"
        "print(*{'torch', 'datasets', 'transformers', 'pandas', 'reasoning_gym'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
