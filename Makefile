# `make quickstart` and `make test` are all a fresh machine needs: both make
# .venv (Python 3.11 to 3.13) and install what they use.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
PIP = .venv/bin/pip install --quiet --disable-pip-version-check \
	--constraint constraints/tf220.txt
SETUP = setup.py pyproject.toml constraints/tf220.txt

.PHONY: quickstart test large mutants format lint docs smoke clean

quickstart: .venv/.train
	.venv/bin/python -m albert_tf2.quickstart

# Two files at a time: most tests keep one core busy.
test: .venv/.dev
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

large: .venv/.dev
	.venv/bin/python -m pytest --run_large -m large --numprocesses 2 --dist loadfile

# Small breaks of the code, one after another: do the tests notice each?
mutants: .venv/.dev
	.venv/bin/python tests/run_mutants.py

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

# The documentation as a site: site/index.html. No TensorFlow needed. (With
# --quiet it would not count its warnings, and so never fail.)
docs: .venv-docs/.done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-lint .venv-docs site build dist *.egg-info runs

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || (echo "error: Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11"; exit 2)
	$(PYTHON) -m venv .venv

# Tools that read the code and need nothing of what it runs on.
.venv-lint/.done: constraints/lint.txt
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/pip install --quiet --disable-pip-version-check \
	  --requirement constraints/lint.txt
	@touch $@

.venv-docs/.done: constraints/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check \
	  --requirement constraints/docs.txt
	@touch $@

.venv/.train: .venv/bin/pip $(SETUP)
	@echo "Installing (TensorFlow is large: some minutes) ..."
	$(PIP) --editable '.[train]'
	@touch $@

.venv/.dev: .venv/bin/pip $(SETUP)
	@echo "Installing with the test tools (some minutes) ..."
	$(PIP) --editable '.[train,dev]'
	@touch $@ .venv/.train
