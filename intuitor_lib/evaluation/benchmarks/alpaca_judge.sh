#!/usr/bin/env bash
# Judges model_outputs.json with AlpacaEval 2.0's own annotator and gpt-4.1, the paper's judge.
# Needs OPENAI_API_KEY (it costs money) and the Hugging Face hub. Results go to judge/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
: "${OPENAI_API_KEY:?set OPENAI_API_KEY, the judge is paid}"
env=${ALPACA_EVAL_ENV:-$HOME/.cache/intuitor/alpaca-eval}
if [ ! -x "$env/bin/alpaca_eval" ]; then
    python3 -m venv "$env"
    # datasets 4 dropped the loading scripts that alpaca_eval's data needs, setuptools 81 the
    # pkg_resources it imports.
    "$env/bin/python" -m pip install --quiet alpaca-eval==0.6.6 'datasets<4' 'setuptools<81'
fi
# alpaca_eval reads a prompt beside its configuration, so both are copied and the judge's name
# is replaced. Verdicts already paid for are kept beside it.
"$env/bin/python" - <<'END'
import importlib.util, pathlib, shutil
package = pathlib.Path(importlib.util.find_spec("alpaca_eval").origin).parent
source = package / "evaluators_configs"
target = pathlib.Path("annotators")
for name in ("weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_clf_gpt4_turbo"):
    shutil.copytree(source / name, target / name, dirs_exist_ok=True)
config = target / "weighted_alpaca_eval_gpt4_turbo" / "configs.yaml"
text = config.read_text()
if "gpt-4-1106-preview" not in text:
    raise SystemExit("this alpaca_eval names another judge than expected")
config.write_text(text.replace("gpt-4-1106-preview", 'gpt-4.1'))
END
"$env/bin/alpaca_eval" --model_outputs model_outputs.json --output_path judge \
    --annotators_config "$PWD/annotators/weighted_alpaca_eval_gpt4_turbo"
