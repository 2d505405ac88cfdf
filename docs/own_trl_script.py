"""Self-certainty as the only reward of an unmodified GRPOTrainer: LoRA on any chat model."""

import argparse

import torch
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from intuitor_lib import SelfCertaintyReward

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="hub name or folder")
parser.add_argument("--max-steps", type=int, default=20)
options = parser.parse_args()

texts = [f"What is {a} * {b}? The number only." for a in range(11, 100) for b in range(2, 10)]
problems = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})

tokenizer = AutoTokenizer.from_pretrained(options.model)
base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
reward = SelfCertaintyReward(model, tokenizer)  # the model instance that the trainer gets
arguments = trl.GRPOConfig(
    output_dir="own_trl_script",
    max_steps=options.max_steps,
    num_generations=8,
    per_device_train_batch_size=64,
    max_completion_length=12,
    learning_rate=1e-5,
    beta=0.005,
    loss_type="grpo",  # eq. 5; TRL's default is another
    bf16=False,
    logging_steps=1,
)
trainer = trl.GRPOTrainer(model, reward, arguments, problems, processing_class=tokenizer)
trainer.train()
trainer.save_model()
