# The versions of constraints.txt in .venv; every other target makes sure of it first.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
RAW := data/raw/builtin/corpus.jsonl
CPU_TORCH := https://download.pytorch.org/whl/cpu
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup run study real serve docs docs-serve check test test-slow test-real clean

help:
	@echo "make setup      .venv with the tested versions, and the built-in corpus"
	@echo "make run        the whole pipeline: data, SFT, samples, rewards, pairs, DPO, evaluation"
	@echo "make study      LongReward against its baselines and ablations, three seeds; ARGS=--quick: in minutes"
	@echo "make real       the same for a real policy (SmolLM2-135M) by gold facts, ARGS=--help; about an hour a seed"
	@echo "make serve      the Prefect UI, MLflow and deployments to trigger, until Ctrl-C"
	@echo "make docs       the documentation site in build/site;  make docs-serve: with live reload, until Ctrl-C"
	@echo "make check      ruff, mypy, import-linter, the lists of stages, the documentation site"
	@echo "make test       the fast tests;  make test-slow: the others"
	@echo "make test-real  tests with real models: LONGREWARD_MODELS names their folder"
	@echo "make clean      removes caches of tools (.longreward, .venv and data stay)"

setup: $(STAMP) $(RAW)

# On Linux without an NVIDIA driver, torch's CPU build comes first where its index can be reached: a tenth of the size.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi > /dev/null && ! $(BIN)/pip show -qq torch 2> /dev/null; then \
		$(BIN)/pip install -qq -c constraints.txt --extra-index-url $(CPU_TORCH) --retries 0 --timeout 10 torch 2> /dev/null || true; \
	fi
	$(BIN)/pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

# Generated, the same bytes each time; DVC knows them (data/raw.dvc).
$(RAW): | $(STAMP)
	$(BIN)/python -m longreward.builtin.corpus --out $(@D)

run: setup
	@$(BIN)/longreward run

study: setup
	@$(BIN)/longreward study $(ARGS)

real: setup
	@$(BIN)/python -m longreward.study.real --out data/real $(ARGS)

serve: setup
	@$(BIN)/longreward serve

# Strict: a broken link or anchor is an error. Material announces MkDocs 2 with each command otherwise.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP)
	$(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

docs-serve: $(STAMP)
	$(BIN)/mkdocs serve

check: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p longreward
	$(BIN)/mypy benchmarks/*.py examples/*.py tools/*.py
	$(BIN)/lint-imports
	$(BIN)/pytest tests/test_architecture.py tests/flows/test_stage_lists.py

# One worker per CPU: `auto` would count physical cores, which is 1 on many machines with 2 CPUs.
test: setup
	$(BIN)/pytest -n logical --dist worksteal

test-slow: setup
	$(BIN)/pytest -m slow

# One after the other: each test runs a model of its own. -rs lists what was skipped, and why.
test-real: setup
	$(BIN)/pytest -m real -rs tests/real

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
