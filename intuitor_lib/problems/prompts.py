"""Prompts as the policy reads them: conversations, chat templates, lengths in tokens."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..recipe import InputError, Recipe
from .problems import Problem

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = datetime.datetime(2025, 5, 26)
"""The time that chat templates write into prompts instead of the present one: the paper's date.

Otherwise a resumed run would train on other prompts, and evaluations of two days would differ.
"""

_CLOCK = "{% macro strftime_now(format) %}"


class PromptError(InputError):
    """A chat template that leaves out a message. The message of the error has the remedy."""


def conversation(problem_prompt: str, recipe: Recipe) -> list[dict[str, str]]:
    """The messages of one problem: the system prompt, if any, and the filled template.

    An empty system prompt is a message too, so that a chat template does not add its own.
    """
    # str.format would fail at the braces of a problem.
    filled = recipe.prompt_template.replace("{prompt}", problem_prompt, 1)
    return messages(filled, recipe.system_prompt)


def messages(text: str, system_prompt: str | None) -> list[dict[str, str]]:
    """A text of the user, after the system prompt, if any."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return [*system, {"role": "user", "content": text}]


def require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer has a chat template, and set its clock to `TEMPLATE_DATE`."""
    template: Any = getattr(tokenizer, "chat_template", None)
    if not template:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise InputError(
            f"the tokenizer of {name!r} has no chat template, so conversations cannot be turned "
            "into tokens: use an instruct model, or set tokenizer.chat_template, or name a model "
            "folder whose tokenizer has one"
        )
    tokenizer.chat_template = stop_clock(template)


def stop_clock(template: Any) -> Any:
    """A chat template, or several by name, with a `strftime_now` in place of transformers'.

    A template gets plain values only, so it is a macro, which writes each directive's text.
    """
    if isinstance(template, dict):
        return {name: stop_clock(text) for name, text in template.items()}
    if not template or "strftime_now" not in template or template.startswith(_CLOCK):
        return template
    directives = sorted({*re.findall(r"%[-_0^#]?[A-Za-z]", template)})
    texts = {directive: TEMPLATE_DATE.strftime(directive) for directive in directives}
    filters = "".join(f" | replace({json.dumps(d)}, {json.dumps(t)})" for d, t in texts.items())
    # The line break belongs to the tag, so what follows still begins a line.
    return f"{_CLOCK}{{{{ format{filters} }}}}{{% endmacro %}}\n{template}"


def prompt_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date in a tokenizer's prompts (ISO 8601), None if its chat template writes none."""
    dated = "strftime_now" in str(getattr(tokenizer, "chat_template", None))
    return TEMPLATE_DATE.date().isoformat() if dated else None


def control_tokens(tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> str | None:
    """Which texts, by id, hold control tokens, as a sentence for a warning; None if none does.

    In a problem, the tokenizer encodes `<|im_end|>` as the token that ends the turn. Control
    tokens are its special tokens, and added ones that its chat template writes.
    """
    template = str(getattr(tokenizer, "chat_template", None))
    added = {token.content.strip(): token for token in tokenizer.added_tokens_decoder.values()}
    tokens = [
        text
        for text, token in added.items()
        if text and (token.special or (text in template and not text.isalnum()))
    ]
    holding = {name: [t for t in tokens if t in text] for name, text in texts.items()}
    holding = {name: found for name, found in holding.items() if found}
    if not holding:
        return None
    name, found = next(iter(holding.items()))
    return (
        f"{len(holding)} of {len(texts)} problems hold control tokens of this tokenizer, which can "
        f"end the turn or begin a reply inside of a problem; the first, {name}, holds "
        f"{' and '.join(map(repr, found))}. Remove them from the data"
    )


def prompt_token_ids(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict[str, str]]],
    **chat_template_kwargs: Any,
) -> list[list[int]]:
    """Token ids of each conversation with the generation prompt, unpadded, as in TRL's trainer.

    Conversations are messages with roles and contents. `chat_template_kwargs` are passed on to the
    chat template, e.g. `enable_thinking`.

    Raises:
        InputError: the tokenizer has no chat template, or the template refuses the messages.
        PromptError: the template leaves out a message, or makes one prompt of two conversations.
    """
    require_chat_template(tokenizer)
    if not conversations:
        return []
    given: dict[str, Any] = {"conversation": list(conversations), "add_generation_prompt": True}
    given |= chat_template_kwargs
    try:
        texts: Any = tokenizer.apply_chat_template(tokenize=False, **given)
        encoded: Any = tokenizer.apply_chat_template(tokenize=True, return_dict=True, **given)
    except Exception as error:  # a template is code of any kind
        roles = [message["role"] for message in conversations[0]]
        given_system = "for a model without a system role set system_prompt=null"
        remedy = given_system if "system" in roles else "choose another model, or mend it"
        raise InputError(
            f"the chat template refuses messages with the roles {', '.join(roles)}: {error}; "
            f"{remedy}"
        ) from error
    _require_messages(conversations, texts)
    return [list(ids) for ids in encoded["input_ids"]]


def _require_messages(conversations: Sequence[list[dict[str, str]]], texts: Sequence[str]) -> None:
    """Check that each prompt holds its messages, whatever the white space, and is one of a kind."""
    remedy = (
        "write one that takes message['content'] as text into chat_template.jinja of the model's "
        "folder, or choose another model"
    )
    asked: dict[str, str] = {}
    for messages, text in zip(conversations, texts, strict=True):
        prompt = _bare(text)
        for role, content in ((message["role"], message["content"]) for message in messages):
            as_json = json.dumps(content, ensure_ascii=False)[1:-1]  # some templates write that
            if _bare(content) not in prompt and _bare(as_json) not in prompt:
                without = ", or set system_prompt=null" if role == "system" else ""
                raise PromptError(
                    f"the chat template loses the {role} message: {content[:80]!r} is not in the "
                    f"prompt {text[:80]!r}; {remedy}{without}"
                )
        whole = _bare("".join(message["content"] for message in messages))
        if asked.setdefault(prompt, whole) != whole:
            raise PromptError(
                f"the chat template makes the same prompt, {text[:80]!r}, of different problems; "
                f"{remedy}"
            )


def _bare(text: str) -> str:
    return "".join(text.split())


def fit_prompts(
    problems: Sequence[Problem], recipe: Recipe, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Problem], list[Problem]]:
    """Problems whose prompt fits in `max_prompt_length` tokens, and those that are dropped.

    The length of a prompt is that of its whole conversation with the chat template.

    Raises:
        InputError: some prompts are too long and `over_long_prompts` is "refuse", or all are.
    """
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    lengths = [len(ids) for ids in prompt_token_ids(tokenizer, conversations)]
    limit = recipe.max_prompt_length
    kept = [p for p, n in zip(problems, lengths, strict=True) if n <= limit]
    dropped = [p for p, n in zip(problems, lengths, strict=True) if n > limit]
    if dropped and recipe.over_long_prompts == "refuse":
        raise InputError(
            f"{len(dropped)} of {len(problems)} prompts exceed max_prompt_length={limit} tokens, "
            f"the longest with {max(lengths)}: raise max_prompt_length, or set "
            "over_long_prompts='drop'"
        )
    if dropped and not kept:
        raise InputError(
            f"all {len(problems)} prompts exceed max_prompt_length={limit} tokens, the shortest "
            f"with {min(lengths)} (system prompt and chat template included): raise "
            "max_prompt_length, or shorten system_prompt or prompt_template"
        )
    return kept, dropped


def to_dataset(problems: Sequence[Problem], recipe: Recipe) -> Dataset:
    """A data set for TRL: columns prompt (a conversation), answer (or None), id and source.

    Problems with unit tests have them in the column `tests`.
    """
    from datasets import Dataset, Features, Value

    texts = ["answer", "id", "source"]
    if any(problem.tests is not None for problem in problems):
        texts.append("tests")
    columns = {name: [getattr(problem, name) for problem in problems] for name in texts}
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    # Types are declared, because a column with only None would be no text column.
    text = Value("string")
    types = {"prompt": [{"role": text, "content": text}], **dict.fromkeys(texts, text)}
    return Dataset.from_dict({"prompt": conversations, **columns}, features=Features(types))
