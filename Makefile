# `make test` and `make demo` do all the set-up: Python 3.11+ and make suffice.
PYTHON ?= python3
# `make test PINS=colab`: with the versions of .ci/pins/colab.txt, in .venv-colab.
PINS ?=
VENV ?= .venv$(if $(PINS),-$(PINS))
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet \
	$(if $(PINS),-c .ci/pins/$(PINS).txt)
# Of every part a little: steps of training, decoding, files, exports, scans.
SOME = tests/test_requirements.py tests/layers/test_reversible_sequence.py \
	tests/layers/test_lsh_self_attention.py::test_layer_is_at_home_in_keras \
	tests/layers/test_recompute.py::test_hashes_once \
	tests/ops/reversible \
	tests/models/test_training.py \
	tests/models/test_checkpoints.py tests/export/test_saved_model.py

.PHONY: test some quick slow demo format clean

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2 --dist worksteal

# For another set of PINS: what shows within a minute that they fit.
some: $(VENV)/.some-installed
	$(BIN)/python -m pytest -n 2 --dist worksteal $(SOME)

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
$(VENV)/.test-installed: setup.cfg $(wildcard .ci/pins/*) | $(BIN)/python
	$(INSTALL) -e '.[cpu,dev]'
	$(INSTALL) --no-deps 'tensorflow-serving-api>=2.20'
	touch $@

$(VENV)/.some-installed: setup.cfg $(wildcard .ci/pins/*) | $(BIN)/python
	$(INSTALL) -e '.[cpu,test]'
	touch $@

$(VENV)/.demo-installed: setup.cfg | $(BIN)/python
	$(INSTALL) -e '.[cpu,plot]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
