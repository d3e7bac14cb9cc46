# Everything is set up by the targets themselves, from the locked lists in requirements/.
# Needed: make and Python 3.10 or newer (PYTHON=/path/to/python names one).

VENV ?= .venv
PYTHON ?=
# One more than there are cores, since tests wait for servers and processes; each worker starts the
# real servers that its tests ask for, and more than four only crowd them.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
TESTS ?= tests
MARKS ?= not faults
ARGS ?=

PY := $(VENV)/bin/python
# Refused outside a virtual environment: VENV may name a directory that is none.
INSTALL := $(PY) -m pip --require-virtualenv --disable-pip-version-check install --quiet --no-input
LOCK := $(VENV)/bin/uv pip compile --universal --python-version 3.10 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet \
	$(if $(UPGRADE),--upgrade)

.PHONY: help demo test stack lint types layers format bench scale faults secrets lock dashboards docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(VENV)/.pbmon ## a finance app under real traffic for 20 s, a summary, a page of charts
	@$(PY) -m examples.pocketbook.demo $(ARGS)

test: $(VENV)/.test $(VENV)/.pbmon ## what this machine can test, but for faults (TESTS=tests/hooks ARGS='-k name')
	@$(PY) -m pytest -n $(WORKERS) --maxprocesses=4 --dist=loadfile -m "$(MARKS)" $(TESTS) $(ARGS)

stack: $(VENV)/.test ## build collector, Prometheus, Alertmanager and Jaeger for the tests (needs Go, once)
	@$(PY) -m tests.stack build

lint: $(VENV)/.test ## ruff: rules and format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.test $(VENV)/.pbmon ## mypy, strict
	@$(VENV)/bin/mypy

layers: $(VENV)/.test $(VENV)/.pbmon ## import-linter: the layers of docs/architecture.md
	@$(VENV)/bin/lint-imports

format: $(VENV)/.test ## rewrite the sources as ruff wants them
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/.bench $(VENV)/.pbmon ## what a request, an event and an error cost, beside their peers (ARGS='--rounds 5')
	@$(PY) -m benchmarks.http_cost $(ARGS)
	@$(PY) -m benchmarks.events $(ARGS)
	@$(PY) -m benchmarks.errors $(ARGS)

scale: $(VENV)/.bench $(VENV)/.pbmon ## the store at 10^5 to 10^7 events (ARGS='--rows 1e5'; needs 10 GB, PostgreSQL)
	@$(PY) -m benchmarks.store --write docs/performance.md $(ARGS)

faults: $(VENV)/.test $(VENV)/.pbmon ## what is lost when anything fails, and in 1,000 kills (ARGS='--only NAME': less, no kills)
	@$(PY) -m tests.faults --write docs/reliability.md $(ARGS)
	@$(if $(ARGS),,$(PY) -m tests.worker.killing --write docs/reliability.md)
	@$(if $(ARGS),,$(PY) -m tests.worker.alert_killing --write docs/alerts.md)

dashboards: $(VENV)/.test $(VENV)/.pbmon ## write grafana/dashboards/*.json and collector-config/rules/*.yml
	@$(PY) -m grafana.build $(ARGS)

docs: $(VENV)/.test $(VENV)/.pbmon ## write docs/api.md, docs/catalogue.md and docs/settings.md
	@$(PY) docs/build.py $(ARGS)

ALERTS := $(addprefix .secrets/alert_,pagerduty_key slack_url watchdog_url)

secrets: .secrets/grafana_admin_password $(ALERTS) ## a random Grafana password and empty addresses of alerts, unless there are some

lock: $(VENV)/.test ## renew requirements/*.txt from pyproject.toml (UPGRADE=1: newest versions)
	@$(LOCK) pyproject.toml --group demo --group test -o requirements/test.txt
	@$(LOCK) pyproject.toml --group demo -c requirements/test.txt -o requirements/demo.txt
	@$(LOCK) pyproject.toml --group demo --group test --group bench -c requirements/test.txt -o requirements/bench.txt
	@$(LOCK) requirements/otel-1.45.2.in --no-deps -o requirements/otel-1.45.2.txt

clean: ## remove what was built; .venv and .secrets stay
	rm -rf dist build demo-report.html .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(PY):
	@sh requirements/venv.sh "$(VENV)" $(if $(PYTHON),"$(PYTHON)")

$(VENV)/.demo: requirements/demo.txt | $(PY)
	@echo "installing requirements/demo.txt into $(VENV) (about half a minute)"
	@$(INSTALL) --no-deps --require-hashes -r requirements/demo.txt || { \
		echo "requirements/demo.txt can't be installed: is the package index reachable? Then repeat make." >&2; exit 1; }
	@touch $@

$(VENV)/.test: requirements/test.txt | $(VENV)/.demo
	@echo "installing requirements/test.txt into $(VENV) (about half a minute)"
	@$(INSTALL) --no-deps --require-hashes -r requirements/test.txt || { \
		echo "requirements/test.txt can't be installed: is the package index reachable? Then repeat make." >&2; exit 1; }
	@touch $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.test
	@echo "installing requirements/bench.txt into $(VENV) (a few seconds)"
	@$(INSTALL) --no-deps --require-hashes -r requirements/bench.txt || { \
		echo "requirements/bench.txt can't be installed: is the package index reachable? Then repeat make." >&2; exit 1; }
	@touch $@

# Again when pyproject.toml changes: the entry points and the version are in its metadata.
$(VENV)/.pbmon: pyproject.toml | $(VENV)/.demo
	@$(INSTALL) --no-deps --no-index --no-build-isolation --editable .
	@touch $@

# The directory is closed, the file is not: Grafana's user in the container has to read it.
.secrets/grafana_admin_password: | $(PY)
	@mkdir -p .secrets && chmod 700 .secrets
	@$(PY) -c 'import secrets; print(secrets.token_urlsafe(24), end="")' > $@.new
	@chmod 644 $@.new && mv $@.new $@
	@echo "wrote $@"

# Nobody is told anything by an empty one, and Alertmanager's log says so: docs/rules.md.
$(ALERTS):
	@mkdir -p .secrets && chmod 700 .secrets
	@touch $@ && chmod 644 $@
	@echo "made $@, empty: write into it where alerts go"
