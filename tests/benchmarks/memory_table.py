"""Print the largest settings that fit common GPUs, by estimate, as a Markdown table.

python tests/benchmarks/memory_table.py
"""

import itertools

from intuitor_lib.recipe import Recipe, get_recipe
from intuitor_lib.training.memory import estimate_memory, gib

MODELS = ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B")
GPUS = {8: 7.6, 12: 11.5, 16: 14.7, 24: 23.5}  # GB of a card, and GiB of it that a process gets
LENGTHS = (3072, 2048, 1024, 512)
TRAIN_BATCHES = (14, 7, 2, 1)
ROLLOUT_BATCHES = (112, 56, 28, 14, 7)


def largest(model: str, gpu: float) -> tuple[Recipe, int] | None:
    """Return the recipe with the most tokens per micro-batch that fits `gpu` GiB, and its bytes.

    NF4 + LoRA with gradient checkpointing, prompts of `max_prompt_length`, updates of 16 groups
    of 7 completions. Among equals, longer completions win, then larger rollout batches.
    """
    sizes = itertools.product(LENGTHS, TRAIN_BATCHES)
    for length, batch in sorted(sizes, key=lambda size: (-size[0] * size[1], -size[0])):
        for rollouts in ROLLOUT_BATCHES:
            recipe = get_recipe(
                "intuitor",
                "gpu-12gb",
                model=model,
                max_completion_length=length,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=112 // batch,
                rollout_batch_size=rollouts,
            )
            total = estimate_memory(recipe, device="cuda").total
            if total <= gpu * 2**30:
                return recipe, total
    return None


def main() -> None:
    settings = ("max_completion_length", "per_device_train_batch_size", "rollout_batch_size")
    print(f"| model | GPU | {' | '.join(settings)} | estimated peak |")
    print("|---|---|---|---|---|---|")
    for model, (gpu, usable) in itertools.product(MODELS, GPUS.items()):
        found = largest(model, usable)
        cells = ["-", "-", "-", "nothing of these fits"]
        if found is not None:
            cells = [*(str(getattr(found[0], name)) for name in settings), gib(found[1])]
        print(f"| {model.rpartition('/')[2]} | {gpu} GB | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
