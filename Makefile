# Each target sets up .venv by itself, once; it is renewed when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo demo-gaze test test-lower drill lint docs format clean
.DEFAULT_GOAL := help

help:
	@echo "make install    set up .venv"
	@echo "make demo       distil real handwritten digits (minutes)"
	@echo "make demo-gaze  distil gaze estimation (minutes)"
	@echo "make test       run the tests"
	@echo "make drill      break runs at random: nothing may go wrong (hours)"
	@echo "make lint       run the linter and the type checker"
	@echo "make docs       build the site of the docs, in build/site"
	@echo "make test-lower run a core of the tests on the oldest versions that are allowed"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/xcl demo digits

demo-gaze: install
	$(BIN)/xcl demo gaze

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

drill: install
	OMP_NUM_THREADS=1 $(BIN)/python -m drills $(DRILLS)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# An environment of its own, with every requirement at its lower bound, and torch as pinned.
LOWER := build/lower
LOWEST := tests/lower_bounds.py

test-lower: $(LOWER)/.installed
	OMP_NUM_THREADS=1 $(LOWER)/bin/python -m pytest -q -n 2 -p no:cacheprovider -W ignore::DeprecationWarning $$($(PYTHON) $(LOWEST) --tests)

$(LOWER)/.installed: pyproject.toml constraints.txt $(LOWEST)
	@test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	$(PYTHON) $(LOWEST) > $(LOWER)/lowest.txt
	$(LOWER)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(LOWER)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOWER)/lowest.txt -e .
	@touch $@

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
