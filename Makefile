# Two commands set everything up on a machine with Python (3.11 or newer), make and git.
PYTHON ?= python3
VENV := .venv
RUN := runs/demo

.PHONY: demo test test-slow test-parallel lint install install-test clean

demo: install  ## compare six ways of drawing digits, train an assistant, and open both in the studio
	@$(VENV)/bin/sanbu demo --run $(RUN)

test: install-test lint  ## lint, types, tests
	$(VENV)/bin/python -m pytest -n 2

test-slow: install-test  ## tests that take minutes: every recipe's bits
	$(VENV)/bin/python -m pytest -m slow

test-parallel: install-test  ## every layout on 2, 4 and 8 processes, and 20 kills
	$(VENV)/bin/python -m pytest -m "slow or not slow" tests/parallel

lint: install-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet "torch==2.13.0"
	$(VENV)/bin/python -m pip install --quiet --editable ".[studio]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --editable ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
