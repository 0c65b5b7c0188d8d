# Bare `make` says what there is. The rest is for those who work on msgd: see CONTRIBUTING.md.
help:
	@echo 'make run          a msgd in the foreground, for a first look'
	@echo 'make relay        an archive, a nats-server, and the copy that it carried: step by step'
	@echo 'make test         lint, types, tests: a minute'
	@echo 'make coverage     these and the thorough tests, and which lines and branches they reach'
	@echo 'make campaign     crashes, power cuts, a siege, a soak: as long as it is told'
	@echo 'make bench        msgd beside its peers'
	@echo 'make deb, rpm     packages, into dist/'
	@echo 'make system-test  the package in a booted Debian, as root'
	@echo 'make clean        removes all that these have made'

PYTHON ?= python3
STATE   = $${XDG_STATE_HOME:-$$HOME/.local/state}/msgd
BIN     = .venv/bin
# Tests wait for processes more than they compute: three workers a processor.
WORKERS ?= $$((3 * $$(nproc)))
# A path, not a finder of setuptools: that costs each start of Python 15 ms.
EDITABLE = --config-settings editable_mode=compat --editable .
# Else each of the processes that the tests start compiles all of msgd again.
unexport PYTHONDONTWRITEBYTECODE

run: .venv/run
	@echo
	@echo 'msgd runs here in the foreground; Ctrl-C stops it. In another terminal, in this folder:'
	@echo '    .venv/bin/msgctl send "my first message"'
	@echo "    tail -F $(STATE)/current.log"
	@echo
	@exec $(BIN)/msgd --config etc/msgd.yaml --log-directory "$(STATE)"

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Beside each other: the types take one processor for a while.
test: .venv/test
	@$(MAKE) --no-print-directory --jobs=2 lint quick-tests

quick-tests: .venv/test
	$(BIN)/python -m pytest --quick -n $(WORKERS) --dist worksteal $(PYTEST)

# The floor holds only where every tool is installed, so it is given from outside (.ci/run).
coverage: lint
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report $(COVERAGE)

# Measures msgd beside its peers (tests/bench/README.md); BENCH='--minutes 3 --scale 0.1' for a look.
bench: .venv/test
	$(BIN)/python -m tests.bench $(BENCH)

bench-guard: .venv/test
	$(BIN)/python -m tests.bench.guard $(BENCH)

# Kills, power cuts, abuse, a soak, for five minutes; CAMPAIGN="soak --minutes 30" for one of them,
# CAMPAIGN=kinds for what each kind of abuse costs, CAMPAIGN=outbreaks for thousands of clients at once,
# CAMPAIGN=worst for the worst traffic, CAMPAIGN=stall for a day of 1 GiB compressed.
campaign: .venv/test
	$(BIN)/python -m tests.campaign $(CAMPAIGN)

# RELAY=--stay lets it go on until Ctrl-C.
relay: .venv/test
	@$(BIN)/python -m tests.lab.show_relay $(RELAY)

# The stamps hold the day's dependencies: a changed pyproject.toml installs again.
.venv/run: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(EDITABLE)
	@touch $@

.venv/test: pyproject.toml tests/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	-@$(BIN)/python -m pytest --collect-only --quiet >/dev/null  # or each worker compiles all tests
	@touch $@ .venv/run

# After a change of the dependencies in pyproject.toml, or to have newer ones.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	echo 'setuptools>=66' >build/lock/build-system
	@echo '# What msgd is built and tested with, from pyproject.toml by `make lock`: each file by its hash.' \
	    >tests/requirements.txt
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --all-extras --no-annotate --no-header pyproject.toml build/lock/build-system \
	    >>tests/requirements.txt

# Packages end in dist/, with checksums on standard output and a list of their parts (CycloneDX).
# They need Debian's own tools: see packaging/README.md.
deb:
	packaging/build-deb dist
	lintian --fail-on error,warning dist/msgd_*.changes
	packaging/sbom dist/msgd_*.deb >dist/msgd_deb.cdx.json

rpm:
	packaging/build-rpm dist
	rpmlint --rpmlintrc packaging/msgd.rpmlintrc dist/msgd-*.rpm packaging/msgd.spec
	packaging/sbom dist/msgd-*.rpm >dist/msgd_rpm.cdx.json

# The package in a booted Debian; as root. SUITE=trixie is Debian 13.
SUITE ?= bookworm
system-test: .venv/test
	$(BIN)/python -m pytest -c tests/system/pytest.ini --suite=$(SUITE) tests/system $(PYTEST)

clean:
	rm -rf .venv build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help run lint test quick-tests coverage lock campaign deb rpm system-test clean bench bench-guard relay
