# `make quickstart` and `make test` are all a fresh machine needs: both make
# .venv (Python 3.11 or 3.12) and install what they use.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
PIP = .venv/bin/pip install --quiet --disable-pip-version-check \
	--constraint constraints/tf220.txt
SETUP = setup.py pyproject.toml constraints/tf220.txt

.PHONY: quickstart test large format lint smoke clean

quickstart: .venv/.train
	.venv/bin/python -m albert_tf2.quickstart

# Two files at a time: most tests keep one core busy.
test: .venv/.dev
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

large: .venv/.dev
	.venv/bin/python -m pytest --run_large -m large

# The whole way, from text to hub.KerasLayer, within a minute.
smoke: .venv/.dev
	.venv/bin/python -m pytest tests/test_smoke.py

lint: .venv-lint/.done
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .
	.ci/types

format: .venv-lint/.done
	.venv-lint/bin/ruff check --fix .
	.venv-lint/bin/ruff format .

clean:
	rm -rf .venv .venv-lint build dist *.egg-info runs

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || (echo "error: Python 3.11 or 3.12 is needed: make PYTHON=python3.11"; exit 2)
	$(PYTHON) -m venv .venv

# Tools that read the code and need nothing of what it runs on.
.venv-lint/.done: constraints/lint.txt
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/pip install --quiet --disable-pip-version-check \
	  --requirement constraints/lint.txt
	@touch $@

.venv/.train: .venv/bin/pip $(SETUP)
	@echo "Installing (TensorFlow is large: some minutes) ..."
	$(PIP) --editable '.[train]'
	@touch $@

.venv/.dev: .venv/bin/pip $(SETUP)
	@echo "Installing with the test tools (some minutes) ..."
	$(PIP) --editable '.[train,dev]'
	@touch $@ .venv/.train
