# Everything that a fresh machine needs is installed by these targets; see README.md.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test lint setup

demo: setup
	ci/demo

test: setup
	. ci/environment && .venv/bin/python -m pytest -c python/pyproject.toml --rootdir=. tests/unit tests/guest

lint: .venv/installed
	.venv/bin/ruff check python tests
	.venv/bin/ruff format --check python tests
	cd python && ../.venv/bin/mypy src
	ci/install shellcheck && shellcheck --shell=dash mkguest/guest/{init,supervise,shutdown,*.sh} && shellcheck ci/{setup,demo,install}

setup: .venv/installed
	ci/setup

.venv/installed: python/requirements-dev.txt python/pyproject.toml
	ci/install python3-venv
	/usr/bin/python3 -m venv .venv
	.venv/bin/pip install --quiet --require-hashes -r python/requirements-dev.txt
	.venv/bin/pip install --quiet --no-build-isolation --no-deps -e python
	touch $@
