# make demo   the main job on simulated tracking files
# make test   the tests (fast ones and the reduced slow ones)
# make docs   the site, in docs/_build/html; warnings are errors
# make lint   ruff and mypy
# Each target makes the environment it needs; both can be run again, and in any order.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin
# One more than cores, as tests wait for servers and disks; modules stay with one worker while all
# have work.
PYTEST := $(BIN)/python -m pytest -q -n $$(( $$(nproc 2>/dev/null || echo 2) + 1 )) --dist worksteal --durations=30

# Tests start many processes; without it each compiles all modules that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

DOCS := -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html

.PHONY: demo docs test test-full test-fast test-lowest lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/kpms-zarr demo $(DEMO)

test: $(VENV)/.installed-test
	$(PYTEST)

test-fast: $(VENV)/.installed-test
	$(PYTEST) -m "not slow and not s3" $(TESTS)

# With the oldest versions that pyproject.toml allows.
test-lowest:
	CONSTRAINTS=constraints-lowest.txt $(MAKE) test-fast VENV=.venv-lowest

# Statistical tests at their full length.
test-full: $(VENV)/.installed-test
	KPMS_ZARR_FULL=1 $(PYTEST)

docs: $(VENV)/.installed-docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx $(DOCS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kpms_zarr

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test
	$(BIN)/python benchmarks/sweep_speed.py
	$(BIN)/python benchmarks/memory_out_of_core.py

$(VENV)/.installed: pyproject.toml constraints.txt tools/make_env.sh
	sh tools/make_env.sh "$(PYTHON)" "$(VENV)" ".[viz]"
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt tools/make_env.sh
	sh tools/make_env.sh "$(PYTHON)" "$(VENV)" ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt tools/make_env.sh
	sh tools/make_env.sh "$(PYTHON)" "$(VENV)" ".[docs,cluster,formats,nwb,s3,viz]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(DEMO) docs/_build docs/_generated docs/tutorials build dist *.egg-info
