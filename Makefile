# Each target sets up .venv by itself, once; it is renewed when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo demo-gaze test drill lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make install    set up .venv"
	@echo "make demo       distil real handwritten digits (minutes)"
	@echo "make demo-gaze  distil gaze estimation (minutes)"
	@echo "make test       run the tests"
	@echo "make drill      break runs at random: nothing may go wrong (hours)"
	@echo "make lint       run the linter and the type checker"

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

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
