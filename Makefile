# make demo       segment the example photo with the model in the box
# make test       style, types and tests, but for the long runs from end to end
# make test-all   everything CI checks
# make lint       style and types alone
# make test-pose  tests with MediaPipe, in an environment of its own (1.3 GB): it wants older numpy and protobuf
# make test-clients  tests with the tools that read our files, in environments of their own (5 GB)
# make clean      remove what the other targets made
#
# Needs a Python of 3.10 or newer (PYTHON=python3.12 make test picks one) and a package index. No GPU, no weights.

PYTHON ?= python3
VENV ?= .venv
POSE_VENV ?= .venv-pose
CLIENTS_VENV ?= .venv-clients
# environments of clients that go together: tests/clients/requirements-NAME.txt, whose first line names its tests
CLIENTS := $(patsubst tests/clients/requirements-%.txt,%,$(wildcard tests/clients/requirements-*.txt))
BIN := $(VENV)/bin
# as many tests at once as there are cores, and 8 at most: each may take 1.5 GB; `make test PARALLEL=` runs them in turn
PARALLEL := -n auto --maxprocesses 8 --dist worksteal
# the raccoon's box in examples/instances.json, as corners
RACCOON := 0,0,588,417

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-pose test-clients lint clean $(CLIENTS:%=test-client-%)

help:
	@sed -n 's/^# make /make /p' Makefile

demo: $(VENV)/.base
	$(BIN)/nanosam segment examples/raccoon.jpg --box $(RACCOON) --format overlay -o demo.png --force
	@echo "The picture is $(CURDIR)/demo.png"

test: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-pose: $(POSE_VENV)/.pose
	$(POSE_VENV)/bin/python -m pytest tests/core/prompting/test_pose_estimator.py tests/commands/test_track_pose.py

test-clients: $(CLIENTS:%=test-client-%)

$(CLIENTS:%=test-client-%): test-client-%: $(CLIENTS_VENV)/%/.ready
	NANOSAM_TEST_CLIENTS=1 QT_QPA_PLATFORM=offscreen $(CLIENTS_VENV)/$*/bin/python -m pytest \
	  $$(sed -n 's|^# tests: |tests/clients/|p' tests/clients/requirements-$*.txt)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(POSE_VENV) $(CLIENTS_VENV) build dist demo.png .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an install runs again only when what it depends on has changed. Editable, so that a pull needs none.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.base

$(POSE_VENV)/.pose: pyproject.toml
	$(PYTHON) -m venv $(POSE_VENV)
	$(POSE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[pose,video]' 'pytest>=8'
	@touch $@

$(CLIENTS_VENV)/%/.ready: tests/clients/requirements-%.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -e . -r $<
	@touch $@
