"""The phases of a training on the meta device, to see how many bytes are alive at once.

It is the library's own code that runs: sampling, the reference pass, the update.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import peft
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from trl.trainer.utils import add_fused_lm_head

from ..certainty.completions import scoring
from ..certainty.forward import can_share_prompts, completion_states
from ..certainty.head import backbone_and_head, head_log_probs, head_logits, head_settings
from ..policy.adapters import ignore_renames, reference_policy
from ..policy.linear import merged_adapters
from ..recipe.recipe import Recipe
from ..rollouts.cache import room_for
from ..rollouts.drawing import draw, make_warpers
from ..rollouts.sampling import _Batch, reason_against as reason_against_rollouts
from .memory_meta import META, Device, Tracker, decoder_layers, stored_tensors
from .update import reason_against as reason_against_update

__all__ = ["trace_phase"]


def trace_phase(
    phase: str,
    model: Any,
    recipe: Recipe,
    *,
    device: str,
    dtype: torch.dtype,
    prompt_tokens: int,
) -> dict[str, dict[str, int]]:
    """What is alive at its peak in each moment of a phase, in bytes by kind; weights left out.

    Between two moments lies what a deeper model does more often, so that each moment's bytes are
    linear in the number of layers. Every completion is `max_completion_length` long, but one, so
    that there is padding.

    Args:
        phase: "rollout", "reference" or "update".
        model: of `build`, after `unpack` where a CPU computes with unpacked weights.
        recipe: what is trained.
        device: "cuda" or "cpu", as which it is computed.
        dtype: what is computed in.
        prompt_tokens: length of every prompt (tokens), but one.
    """
    autocast = None if dtype == torch.float32 else dtype
    computed = Device(device, autocast)
    with ignore_renames(), Tracker() as tracker, computed.computing():
        return _Trace(model, recipe, device, prompt_tokens, tracker, computed).run(phase)


class _Trace:
    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        device: str,
        prompt_tokens: int,
        tracker: Tracker,
        computed: Device,
    ) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        self.prompt_tokens, self.tracker, self.computed = prompt_tokens, tracker, computed
        for _, weight in stored_tensors(model):
            tracker.leave_out(weight)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        base, self.backbone, self.head = backbone_and_head(model)
        self.settings = head_settings(model)
        self.grouped_update = recipe.update != "plain" and not reason_against_update(model)
        if not self.grouped_update:
            add_fused_lm_head(base, recipe.temperature, outputs=("log_probs", "entropy"))

    def run(self, phase: str) -> dict[str, dict[str, int]]:
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(
                lambda p: self.tracker.rename(p.grad, "gradients")
            )
        if phase == "update":
            optimizer = torch.optim.AdamW(self.trained, foreach=self.device == "cuda")
            self._fill_gradients()
            with self.tracker.kind("optimizer"):
                optimizer.step()
            if self.recipe.gradient_accumulation_steps == 1:
                optimizer.zero_grad()
            self.tracker.peaks.clear()
            self._update(optimizer)
        else:
            with self.tracker.kind("optimizer"):  # two moments of each, as AdamW keeps
                states = [torch.empty_like(p) for p in (*self.trained, *self.trained)]
            self.tracker.peaks.clear()
            self._rollout() if phase == "rollout" else self._reference()
            del states
        return {moment: dict(parts) for moment, parts in self.tracker.peaks.items()}

    def _fill_gradients(self) -> None:
        with self.tracker.kind("gradients"):
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter)

    def _prompts(self, completions: int) -> list[list[int]]:
        """Prompts of that many completions, group beside group, one a token shorter."""
        groups = [i // self.recipe.num_generations for i in range(completions)]
        last = groups[-1]
        short = last > 0
        # Equal lists are the same prompt.
        return [[i] * (self.prompt_tokens - (short and i == last)) for i in groups]

    def _completions(self, number: int) -> list[list[int]]:
        length = self.recipe.max_completion_length
        return [[0] * (length - (length > 1 and i > 0 and i == number - 1)) for i in range(number)]

    # Rollouts

    def _rollout(self) -> None:
        number = self.recipe.completions_per_step
        self.tracker.moment("merge")
        with contextlib.ExitStack() as stack:
            stack.enter_context(scoring(self.model))
            with self.tracker.kind("merged weights"):
                stack.enter_context(merged_adapters(self.model))
            if self.recipe.rollout == "generate" or reason_against_rollouts(self.model):
                self._generate(number)
            else:
                self._grouped(min(number, self.recipe.rollout_batch_size or number))

    def _grouped(self, number: int) -> None:
        tracker, length = self.tracker, self.recipe.max_completion_length
        tracker.moment("prefill")
        with tracker.kind("cache"):
            rollout = _Batch(self.backbone, self._prompts(number), length, 0)
        for layer in rollout.cache.layers:
            _label_cache(layer, tracker)
        hidden = rollout.prefill()
        tracker.moment("draw")
        self._draw(hidden)
        if length == 1:
            return
        # The step at which keys and values are moved to more room for the last time.
        before = _last_room(self.prompt_tokens, length)
        with tracker.kind("cache"):
            for layer in rollout.cache.layers:
                shape = (*layer.keys.shape[:-2], before, layer.keys.shape[-1])
                layer.keys = layer.values = layer._room = layer._value_room = None
                layer._room = torch.empty(shape, dtype=layer.dtype, device=META)
                layer._value_room = torch.empty_like(layer._room)
        for moment, held in (("move", before), ("end", self.prompt_tokens + length - 2)):
            tracker.moment(moment)
            for layer in rollout.cache.layers:
                layer.keys = layer._room[..., :held, :]
                layer.values = layer._value_room[..., :held, :]
            if rollout.mask is not None:
                rollout.mask = torch.ones(number, held, dtype=torch.bool, device=META)
            hidden = rollout.step()
            tracker.moment(f"{moment}, draw")
            self._draw(hidden)

    def _draw(self, hidden: Tensor) -> None:
        warpers = make_warpers(self.recipe.top_k, self.recipe.top_p)
        head = self.head
        with self.tracker.kind("logits"):
            rows = hidden.to(head.weight.dtype)
            logits = head_logits(rows, head.weight, head.bias, *self.settings)
            draw(logits, temperature=self.recipe.temperature, warpers=warpers)

    def _generate(self, number: int) -> None:
        """As `model.generate`: every completion with its own prompt, keys and values copied."""
        tracker, length = self.tracker, self.recipe.max_completion_length
        cache = DynamicCache(config=self.backbone.config.get_text_config())

        def step(tokens: int, attended: int) -> None:
            output = self.model(
                input_ids=torch.empty(number, tokens, dtype=torch.long, device=META),
                attention_mask=torch.empty(number, attended, dtype=torch.long, device=META),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            tracker.moment("draw")
            with tracker.kind("logits"):
                scores = output.logits[:, -1].to(torch.float32, copy=True)
                torch.softmax(scores / self.recipe.temperature, -1)

        tracker.moment("prefill")
        step(self.prompt_tokens, self.prompt_tokens)
        tracker.moment("end")
        held = self.prompt_tokens + length - 2
        with tracker.kind("cache"):
            for layer in cache.layers:
                if isinstance(getattr(layer, "keys", None), Tensor):
                    _label_cache(layer, tracker)
                    shape = (*layer.keys.shape[:-2], held, layer.keys.shape[-1])
                    layer.keys = layer.values = None
                    layer.keys = torch.empty(shape, dtype=layer.dtype, device=META)
                    layer.values = torch.empty_like(layer.keys)
        step(1, held + 1)

    # The reference and the update

    def _reference(self) -> None:
        is_peft = isinstance(self.model, peft.PeftModel)
        self.model.train()
        reference = reference_policy(self.model) if is_peft else contextlib.nullcontext()
        with torch.no_grad(), reference:
            self._score("forward")

    def _update(self, optimizer: Any) -> None:
        if self.recipe.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            if self.recipe.use_lora:
                self.model.enable_input_require_grads()
        self.model.train()
        loss = self._score("forward").sum()
        self.computed.forget_casts()
        self.tracker.moment("backward")
        loss.backward()
        del loss
        self.tracker.moment("optimizer")
        optimizer.step()

    def _score(self, moment: str) -> Tensor:
        number = self.recipe.per_device_train_batch_size
        prompts, completions = self._prompts(number), self._completions(number)
        self.tracker.moment(moment)
        with self._layers_marked():
            if not self.grouped_update:
                return self._plain_score(prompts, completions)
            hidden = completion_states(
                self.backbone,
                prompts,
                completions,
                share_prompts=can_share_prompts(self.model),
                device=META,
            )
        self.tracker.moment("head")
        tokens = torch.tensor([token for ids in completions for token in ids])
        scale, softcap = self.settings
        with self.tracker.kind("logits"):
            return head_log_probs(
                hidden,
                self.head,
                tokens,
                temperature=self.recipe.temperature,
                logit_scale=scale,
                softcap=softcap,
            )[0]

    @contextlib.contextmanager
    def _layers_marked(self) -> Iterator[None]:
        """Within it the backward passes of the first and the last layer are marked."""
        layers = decoder_layers(self.backbone)

        def mark(name: str) -> Any:
            def hook(module: Any, args: Any, output: Any) -> None:
                states = output[0] if isinstance(output, tuple) else output
                if states.requires_grad:
                    states.register_hook(lambda _: self.tracker.moment(name))

            return hook

        hooks = []
        if layers is not None and len(layers) > 1:
            hooks.append(layers[-2].register_forward_hook(mark("backward, inner")))
            hooks.append(layers[0].register_forward_hook(mark("backward, first")))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _plain_score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> Tensor:
        shape = (len(prompts), self.prompt_tokens + self.recipe.max_completion_length)
        ids = torch.empty(shape, dtype=torch.long, device=META)
        output = self.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            labels=ids.clone(),
            fused_lm_head=True,
        )
        return output.log_probs


def _last_room(prompt: int, completion: int) -> int:
    """Room for keys and values (tokens) before it grows for the last time."""
    before = room = prompt
    while room < prompt + completion - 1:
        before, room = room, room_for(room, room + 1)
    return before


def _label_cache(layer: Any, tracker: Tracker) -> None:
    """Count what a cache's layer allocates as cache."""

    class Labelled(type(layer)):  # type: ignore[misc]
        def update(self, *args: Any, **kwargs: Any) -> Any:
            with tracker.kind("cache"):
                return super().update(*args, **kwargs)

        def batch_select_indices(self, indices: Tensor) -> None:
            with tracker.kind("cache"):
                super().batch_select_indices(indices)

    layer.__class__ = Labelled
