"""Prompts as the policy reads them: conversations, chat templates, lengths in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..recipe import InputError, Recipe
from .problems import Problem

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["conversation", "fit_prompts", "prompt_token_ids", "require_chat_template", "to_dataset"]


def conversation(problem_prompt: str, recipe: Recipe) -> list[dict[str, str]]:
    """The messages of one problem: the system prompt, if any, and the filled template.

    An empty system prompt is a message too, so that a chat template does not add its own.
    """
    # str.format would fail at the braces of a problem.
    filled = recipe.prompt_template.replace("{prompt}", problem_prompt, 1)
    user = {"role": "user", "content": filled}
    if recipe.system_prompt is None:
        return [user]
    return [{"role": "system", "content": recipe.system_prompt}, user]


def require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer can format conversations.

    Raises:
        InputError: it has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise InputError(
            f"the tokenizer of {name!r} has no chat template, so conversations cannot be turned "
            "into tokens: use an instruct model, or set tokenizer.chat_template, or name a model "
            "folder whose tokenizer has one"
        )


def prompt_token_ids(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict[str, str]]],
    **chat_template_kwargs: Any,
) -> list[list[int]]:
    """Token ids of each conversation with the generation prompt, unpadded, as in TRL's trainer.

    Args:
        tokenizer: the policy's tokenizer.
        conversations: messages with roles and contents.
        chat_template_kwargs: passed on to the chat template, e.g. `enable_thinking`.

    Raises:
        InputError: the tokenizer has no chat template, or the template refuses the messages.
    """
    from jinja2 import TemplateError

    require_chat_template(tokenizer)
    if not conversations:
        return []
    try:
        encoded: Any = tokenizer.apply_chat_template(
            conversation=list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **chat_template_kwargs,
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in conversations[0])
        raise InputError(
            f"the chat template refuses messages with the roles {roles}: {error}; for a model "
            "without a system role set system_prompt=null"
        ) from error
    return [list(ids) for ids in encoded["input_ids"]]


def fit_prompts(
    problems: Sequence[Problem],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    **chat_template_kwargs: Any,
) -> tuple[list[Problem], list[Problem]]:
    """Problems whose prompt fits in `max_prompt_length` tokens, and those that are dropped.

    The length of a prompt is that of its whole conversation with the chat template.

    Raises:
        InputError: some prompts are too long and `over_long_prompts` is "refuse", or all are.
    """
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    token_ids = prompt_token_ids(tokenizer, conversations, **chat_template_kwargs)
    lengths = [len(ids) for ids in token_ids]
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
