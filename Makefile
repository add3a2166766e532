# Everything that a fresh machine needs is installed by these targets; see README.md.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test soak bench lint format setup

demo: setup
	ci/demo

test: setup
	. ci/environment && .venv/bin/python -m pytest -c python/pyproject.toml --rootdir=. tests/unit tests/nix tests/guest

# What takes long; MVM_SOAK_TIMES says how often each is done.
soak: setup
	. ci/environment && .venv/bin/python -m pytest -c python/pyproject.toml --rootdir=. -m soak tests/guest

bench: setup
	. ci/environment && PYTHONPATH=tests/support .venv/bin/python tests/bench/run.py --json .cache/bench.json

lint: setup
	ci/lint

format: setup
	ci/lint --format

setup: .venv/installed
	ci/setup

.venv/installed: python/requirements-dev.txt python/pyproject.toml
	ci/install python3-venv
	/usr/bin/python3 -m venv .venv
	.venv/bin/pip install --quiet --require-hashes -r python/requirements-dev.txt
	.venv/bin/pip install --quiet --no-build-isolation --no-deps -e python
	touch $@
