# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help venv demo test test-all lint format clean

help:
	@echo "make demo      install, then play 64 games of LearnedPong-v0 and film them"
	@echo "make test      install, lint, check types, run the tests"
	@echo "make test-all  the same, with the tests that take minutes"
	@echo "make format    let ruff rewrite what it can"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[all,test]"
	touch $@

venv: $(VENV)/.installed

demo: venv
	$(BIN)/learned-envs demo

# One thread a worker: two that share the cores by spinning are slower than one.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m ""

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
