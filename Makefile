# `make test` and `make demo` do all the set-up: Python 3.11+ and make suffice.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: test quick slow demo format clean

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2 --dist worksteal

# While you wait: every test of ops and layers eagerly, with one case under XLA.
quick: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --quick tests/ops tests/layers

slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m slow

demo: $(VENV)/.demo-installed
	$(BIN)/keras-reformer train --name demo --time-limit 350

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps make pip run again when the dependencies change.
$(VENV)/.test-installed: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[cpu,dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'tensorflow-serving-api>=2.21'
	touch $@

$(VENV)/.demo-installed: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[cpu,plot]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
