.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MEASURE = $(BIN)/python -m pytest benchmarks -n0 --benchmark-only --benchmark-quiet -p no:cacheprovider

.PHONY: help install conformance container test lint docs site remedies benchmark benchmark-long clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## create .venv and install the project with its tools

conformance: $(STAMP)  ## build both reference databases on an embedded server and check them
	$(BIN)/pgconform run

container: $(STAMP)  ## build an image without any registry (as root), and run both suites in it
	sh fixtures/image/build.sh
	$(BIN)/python -m pytest tests/test_container.py -rs

test: $(STAMP)  ## the project's own tests
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(STAMP)  ## ruff, mypy strict, generated files are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m docs.generate --check

docs: $(STAMP)  ## write the generated pages and the contract's JSON Schema anew
	$(BIN)/python -m docs.generate

site: $(STAMP)  ## the documentation as a site, in build/site
	$(BIN)/python -m mkdocs build --strict --quiet

remedies: $(STAMP)  ## the remedies that explain shows, from the faults themselves
	$(BIN)/python -m tests.remedies

benchmark: $(STAMP)  ## the short benchmarks: one table, about four minutes
	$(MEASURE) $(ASKED)

benchmark-long: $(STAMP)  ## the benchmarks at full size, about an hour
	$(MEASURE) --long $(ASKED)

clean:  ## remove what can be made again
	rm -rf $(VENV) reports/out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
