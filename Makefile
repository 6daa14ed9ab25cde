# make demo     sets up, runs all studies on the embedded suite, prints the path of a report
# make studies  the same: each study on its own page, then one page that holds them all
# make test     sets up, runs the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that run tests, one thread each.
PROCESSES ?= $(shell getconf _NPROCESSORS_ONLN)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export TOKENIZERS_PARALLELISM = false

.PHONY: demo studies test test-oldest lint docs bench clean

demo: studies

studies: $(VENV)/.base
	$(BIN)/python examples/all_studies.py --out out

test: $(VENV)/.test
	$(PYTEST) $(PYTEST_ARGS)

# The tests that build models, on the oldest supported transformer-lens: both model classes.
test-oldest: .venv-oldest/.test
	$(PYTEST:$(BIN)%=.venv-oldest/bin%) -m models $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(VENV)/.test
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .venv-oldest out site build dist

# One stamp for each set of packages, so that a rerun installs nothing. torch comes first: asked
# for by another package, a looser request would take the newest build.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch into $(VENV) (once)"
	$(PIP) torch
	@touch $@

$(VENV)/.base: $(VENV)/.torch pyproject.toml
	@echo "Installing headspec into $(VENV) (once)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	@echo "Installing headspec and what its tests need into $(VENV) (once)"
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.base

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "Installing headspec and its development tools into $(VENV) (once)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.base $(VENV)/.test

.venv-oldest/.test: constraints.txt pyproject.toml
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	sed 's/^transformer-lens==.*/transformer-lens==3.9.0/' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet -c .venv-oldest/constraints.txt torch
	.venv-oldest/bin/python -m pip install --quiet -c .venv-oldest/constraints.txt -e '.[test]'
	@touch $@
