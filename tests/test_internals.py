"""What is used of other libraries beyond their public interface is what was read.

After an upgrade this fails. Read each name that it lists in the new version, beside our code that
uses it; then `python tests/test_internals.py` writes `internals.json` again.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import pkgutil
from pathlib import Path

import pytest

import intuitor_lib
from intuitor_lib.training.trainer import IntuitorTrainer

LIBRARY = Path(intuitor_lib.__file__).parent
KNOWN = Path(__file__).with_name("internals.json")
USED = {
    "trl": {
        "trl.GRPOTrainer.__init__": "makes no reference at beta=0; sets `_tokenizer` and `_step`",
        "trl.GRPOTrainer._get_train_sampler": "extended: the order within an epoch",
        "trl.GRPOTrainer._generate_single_turn": "extended: rollouts with each prompt once",
        "trl.GRPOTrainer._prepare_inputs": "extended: the same, but groups stay together",
        "trl.GRPOTrainer._compute_loss": "extended: the gap of log-probabilities",
        "trl.GRPOTrainer._generate_and_score_completions": "extended: `_metrics`; reads `ref`",
        "trl.GRPOTrainer._get_per_token_logps_and_entropies": "extended: scores completions only",
        "trl.GRPOTrainer._calculate_rewards": "extended: self-certainty goes in, rows come out",
        "trl.trainer.utils.RepeatSampler": "seeded by `training.savepoints.EpochSampler`",
        "trl.trainer.utils.add_fused_lm_head": "called for the reference",
        "trl.trainer.utils.nanstd": "called as TRL does",
        "trl.trainer.utils.split_tensor_dict": "called as TRL does",
        "trl.trainer.utils.use_adapter": "activates the adapter `ref`",
        "trl.extras.profiling.profiling_context": "called as TRL does",
        "trl.models.unwrap_model_for_generation": "called as TRL does",
        "trl.generation.vllm_generation.VLLMGeneration.sync_weights": "sends what is given instead",
        "trl.generation.vllm_generation.VLLMGeneration._iter_named_params": "replaced",
    },
    "peft": {
        "peft.tuners.lora.layer.LoraLayer.__init__": "its attributes are read",
        "peft.tuners.lora.layer.LoraLayer.update_layer": "its attributes are read",
        "peft.tuners.lora.layer.Linear.forward": "`policy.linear` computes it in fewer passes",
        "peft.tuners.lora.bnb.Linear4bit.forward": "`policy.linear` computes it in fewer passes",
        "peft.tuners.lora.layer.Linear.get_delta_weight": "merged for vLLM",
        "peft.tuners.lora.bnb.Linear4bit.get_delta_weight": "merged for vLLM",
        "peft.tuners.tuners_utils.BaseTunerLayer.set_adapter": "changes what is trainable",
    },
    "transformers": {
        "transformers.cache_utils.DynamicLayer": "`rollouts.cache.GrowingLayer` extends it",
        "transformers.cache_utils.DynamicCache.__init__": "its layers show what a model keeps",
        "transformers.cache_utils.StaticLayer": "what a recorded step reads and writes",
        "transformers.PreTrainedModel.__init__": "sets `_attn_implementation`; a class with "
        "`_can_compile_fullgraph` can be recorded",
        "transformers.generation.utils.GenerationMixin._supports_default_dynamic_cache": "asked",
        "transformers.integrations.WandbCallback.setup": "extended: the run's id; `_wandb` is used",
        "transformers.integrations.WandbCallback.on_log": "extended: completions too",
        "transformers.integrations.TrackioCallback.setup": "`_trackio`, `_initialized` are read",
        "transformers.integrations.TensorBoardCallback.on_train_begin": "takes a `tb_writer`",
        "transformers.integrations.TensorBoardCallback.__init__": "`_SummaryWriter` is used",
        "transformers.Trainer._load_from_checkpoint": "loads a step without training",
    },
    "bitsandbytes": {
        "bitsandbytes.nn.Linear4bit.__init__": "`support_avx512bf16_for_cpu` is set",
        "bitsandbytes.nn.Linear4bit.forward": "`policy.linear` computes it with unpacked weights",
        "bitsandbytes.functional.dequantize_4bit": "unpacks weights",
    },
}
"""Dotted names that the library uses beyond public interfaces, and what each is used for."""
# Parts of the libraries that are documented for users.
DOCUMENTED = {"bitsandbytes": {"nn", "functional"}, "peft": {"tuners.lora"}, "trl": set()}
OTHERS = {"_reset_state"}  # of accelerate, in `store.processes`
PYTHONS = {"_asdict", "_replace", "_fields", "_exit"}


def read(name):
    """Signature and hash of the source of a dotted name."""
    thing = inspect.unwrap(pkgutil.resolve_name(_with_colon(name)))
    source = inspect.getsource(thing)
    return f"{inspect.signature(thing)} {hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _with_colon(name):
    """`trl.GRPOTrainer.x` as `trl:GRPOTrainer.x`: modules first, then what they hold."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        return f"{'.'.join(parts[:end])}:{'.'.join(parts[end:])}"
    raise ImportError(name)


def found():
    return {
        library: {
            "version": importlib.metadata.version(library),
            "names": {name: read(name) for name in names},
        }
        for library, names in USED.items()
    }


@pytest.mark.parametrize("library", USED)
def test_each_is_as_it_was_read(library):
    known, now = json.loads(KNOWN.read_text())[library], found()[library]
    changed = [name for name, is_now in now["names"].items() if known["names"].get(name) != is_now]
    assert not changed, f"{library} {now['version']}: read {', '.join(changed)} again"
    assert known == now, f"{library} {now['version']}: nothing changed but version or table"


def test_overridden_methods_take_what_trl_passes():
    for name in USED["trl"]:
        method = name.rpartition(".")[2]
        if not name.startswith("trl.GRPOTrainer._") or method not in vars(IntuitorTrainer):
            continue
        theirs = inspect.signature(pkgutil.resolve_name(_with_colon(name))).parameters
        for parameter in inspect.signature(getattr(IntuitorTrainer, method)).parameters.values():
            known = parameter.name in theirs or parameter.kind is parameter.VAR_KEYWORD
            assert known or method == "__init__", f"{method}: {parameter.name}"


def trees():
    for file in LIBRARY.rglob("*.py"):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def test_every_private_name_is_in_a_table():
    """A name with an underscore that the library reads is its own, or in a table."""
    own, used = set(), {}
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Attribute):
                used.setdefault(node.attr, file.name)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                used.setdefault(str(getattr(node.args[1], "value", "")), file.name)
    tables = " ".join(f"{name} {use}" for names in USED.values() for name, use in names.items())
    strange = {
        name: file
        for name, file in used.items()
        if name.startswith("_") and not name.startswith("__")
        if name not in own | OTHERS | PYTHONS and name not in tables
    }
    assert not strange, f"private names of other libraries: {strange}"


def test_what_is_imported_of_internal_modules_is_in_a_table():
    for file, tree in trees():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{a.name}" for a in node.names]
            for name in names:
                library, _, part = name.partition(".")
                module, is_from = part.rpartition(".")[0], isinstance(node, ast.ImportFrom)
                internal = module if is_from else part
                if not internal or library not in DOCUMENTED or internal in DOCUMENTED[library]:
                    continue
                listed = any(f"{known}.".startswith(f"{name}.") for known in USED[library])
                assert listed, f"{file.name} imports {name}"


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(found(), indent=1, sort_keys=True) + "\n")
