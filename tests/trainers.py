"""A trainer as `train` makes it."""

import dataclasses

import torch

from intuitor_lib.policy.loading import Policy
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import to_dataset
from intuitor_lib.training.rewards.confidence import SelfCertaintyReward
from intuitor_lib.training.trainer import IntuitorTrainer, grpo_config

CPU = torch.device("cpu")


def make_trainer(recipe, policy: Policy, folder, rewards=None, asked=None, **kwargs):
    """`asked`: further arguments of TRL's."""
    problems = load_problems(recipe).train
    args = grpo_config(recipe, folder, CPU)
    if asked:
        found = {"steps_per_generation": None, "generation_batch_size": None}
        args = dataclasses.replace(args, **(found | asked))
    return IntuitorTrainer(
        policy.model,
        reward_funcs=rewards or SelfCertaintyReward(policy.model, policy.tokenizer),
        args=args,
        train_dataset=to_dataset(problems, recipe),
        processing_class=policy.tokenizer,
        **kwargs,
    )
