# `make` lists the targets. Each one that needs the environment makes it first: .venv, with the
# versions of constraints.txt. On the machine: Python 3.11, its pip and venv, make and bash.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
PROFILE ?= cpu
WORKERS ?= 2
ARGS ?=

SHELL := bash
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DOCS := .venv-docs

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A thread that waits for the others must not keep a core busy that other work could use.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format lab reproduce audit seconds benchmark gpu-check survive constraints docs browser ci clean distclean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=$(PYTHON) makes the environment, PROFILE=$(PROFILE) is what reproduce runs,"
	@echo "  ARGS= goes to pytest or to reproduce:  make test ARGS='-m \"not slow\"'"

quickstart: $(INSTALLED) ## fetch the embedded model, execute the first notebook, print its table
	$(PY) -m intuitor_lib quickstart

test: $(INSTALLED) ## run the tests, the slow ones too
	$(PY) -m intuitor_lib fetch
	$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(INSTALLED) ## check style, formatting and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(INSTALLED) ## format code and notebooks, fix what ruff can fix
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

lab: $(INSTALLED) ## open the notebooks in JupyterLab
	JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyterlab notebooks

docs: $(DOCS)/.installed ## build the site into build/docs; ARGS='-b linkcheck' tries its outside links
	$(DOCS)/bin/python -m sphinx -b html -q -E -W --keep-going -c docs -d build/doctrees $(ARGS) . build/docs
	@echo "build/docs/index.html"

browser: $(VENV)/.browser ## use JupyterLab in headless Chromium: watch, stop, resume, open a training
	$(PY) -m intuitor_lib fetch
	$(PY) tests/browser_check.py $(ARGS)

reproduce: $(INSTALLED) ## execute every notebook; finished runs are reused, broken ones resumed
	$(PY) -m intuitor_lib reproduce --profile $(PROFILE) $(ARGS)

audit: $(INSTALLED) ## check what `make reproduce` left: trainings as planned, numbers in range
	$(PY) tests/notebook_results.py check --profile $(PROFILE)

seconds: $(INSTALLED) ## hold the seconds of `make reproduce PROFILE=smoke` to their caps
	$(PY) tests/notebook_seconds.py

ci: ## everything a change must pass: lint, tests, every notebook at the smoke profile
	.ci/run

clean: ## remove build products and executed notebooks, never trained runs or the model
	rm -rf build dist *.egg-info runs/notebooks .mypy_cache .pytest_cache .ruff_cache
	find intuitor_lib tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and the environments
	rm -rf $(VENV) $(DOCS)

# The stamp is touched last, so an interrupted installation is taken up again. pip names the
# direct dependencies as it gets to them; its whole log is kept beside the stamp.
define CHECK_PYTHON
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 14):
    sys.exit("Python 3.11 to 3.13 is needed (3.11 is what is tested); %s is %d.%d.\n"
             "Name another one: make PYTHON=/path/to/python3.11 TARGET"
             % ((sys.executable,) + tuple(sys.version_info[:2])))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s lacks venv or pip. Debian and Ubuntu have them in a package of their own:\n"
             "apt install python%d.%d-venv"
             % ((sys.executable,) + tuple(sys.version_info[:2])))
endef
export CHECK_PYTHON

define make_environment
@rm -f $@
@command -v $(PYTHON) >/dev/null || \
	{ echo "No $(PYTHON) here. Name one: make PYTHON=/path/to/python3.11 TARGET" >&2; exit 1; }
@$(PYTHON) -c "$$CHECK_PYTHON"
@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(@D)
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(make_environment)
	@echo "Installing into $(VENV): some minutes the first time; all of it in $(VENV)/install.log"
	@rm -f $(VENV)/install.log
	@set -o pipefail; $(PY) -m pip install --log $(VENV)/install.log \
		--constraint constraints.txt --editable '.[dev]' \
		| awk '/^Collecting .*\(from intuitor/ { print "  " $$2 } \
			/^Installing collected/ { print "  unpacking" } { fflush() }'
	@touch $@
	@echo "Installed."

# The site is built from the sources alone, so its environment has neither torch nor the library.
define DOCS_REQUIREMENTS
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["docs"], sep="\n")
endef
export DOCS_REQUIREMENTS

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(make_environment)
	@$(PYTHON) -c "$$DOCS_REQUIREMENTS" >$(DOCS)/requirements.txt
	@$(DOCS)/bin/python -m pip install --quiet --constraint constraints.txt \
		--requirement $(DOCS)/requirements.txt
	@touch $@

$(VENV)/.browser: $(INSTALLED)
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || \
		{ echo "No chromium here. Debian: apt install chromium. Else set CHROMIUM to one" >&2; exit 1; }
	@$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	@touch $@

# A trial resolution in an empty environment: nothing is installed, what would be is written down.
define WRITE_CONSTRAINTS
import json, re, sys
if sys.version_info[:2] != (3, 11):
    sys.exit("The versions are fixed for Python 3.11: make constraints PYTHON=python3.11")
print("""# The version of every package that the installation brings, for Python 3.11.
# Written by `make constraints` from the dependencies in pyproject.toml; not edited by hand.
#
# The CPU build of torch and its CUDA build both meet the line for torch. What the CUDA build
# brings (nvidia-*, cuda-*, triton) is not listed: torch asks for exact versions of all of it but
# cuda-bindings, cuda-pathfinder and nvidia-nvjitlink, which move within one release of CUDA.""")
found = {}
for item in json.load(sys.stdin)["install"]:
    name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
    found[name] = item["metadata"]["version"].partition("+")[0]
for name in sorted(found):
    if not re.match(r"(intuitor|triton)$$|(nvidia|cuda)-", name):
        print(name + "==" + found[name])
endef
export WRITE_CONSTRAINTS

benchmark: $(INSTALLED) ## speed and memory beside stock TRL; 46 minutes, nothing else running
	$(PY) tests/benchmarks/training_speed.py $(ARGS)

gpu-check: $(INSTALLED) ## check this library on a GPU, in fifteen minutes; writes gpu_check.md
	$(PY) tests/benchmarks/gpu_check.py $(ARGS)

survive: $(INSTALLED) ## kill 25 trainings; each must end as if it had not been killed
	$(PY) tests/survival.py kill $(ARGS)

constraints: ## find the versions of constraints.txt anew
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet --dry-run --ignore-installed \
		--report "$$folder/report.json" '.[dev,docs,browser]'; \
	"$$folder/venv/bin/python" -c "$$WRITE_CONSTRAINTS" \
		<"$$folder/report.json" >"$$folder/constraints.txt"; \
	cat "$$folder/constraints.txt" >constraints.txt; \
	echo "constraints.txt: $$(grep -c '^[a-z]' constraints.txt) packages"
