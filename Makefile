# Everything from nothing but Python and pip: `make demo` to watch it work, `make test` to check it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-engines check benchmarks clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.engines: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,ray,slurm]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/scalecli quickstart --out demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n auto --dist loadscope

# Ray comes from pip. Slurm comes from Debian where we are root; where it cannot be had its tests are skipped and say so.
test-engines: $(VENV)/.engines
	command -v slurmctld >/dev/null || ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ] || \
		{ apt-get -q update && apt-get -q -y install slurm-wlm munge; } >/dev/null || true
	$(BIN)/python -m pytest -q -rs -m engines tests/probes/engines

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_wheel.py

benchmarks: $(VENV)/.ready
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo dist .mypy_cache .ruff_cache .pytest_cache
