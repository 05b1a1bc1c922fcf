# Everything a newcomer needs; the environment is made in .venv on first use.
#   make demo    kill a primary, watch the failover; exits 0 only if it was verified
#   make demo-maintenance  move the service to another node under a write load; exits 0 only if nothing was lost
#   make demo-region  lose a region, have four clusters leave it and come back, one of them active/active; exits 0 only
#                if nothing was lost
#   make compose-demo  two failovers in containers (docker compose), the second with the worker killed that carries it out
#   make test    unit and integration tests on real processes; PROCESSES=3 files at once (tests/lanes.py)
#   make chaos   fault stories on real processes; SEED=n RUNS=100 adds composed ones, ONLY=slug plays one (LASTS=600: for so long)
#   make chaos-simulated  the same in simulated time, and 10,000 composed ones
#   make check   ruff, mypy --strict, import-linter, and that the site of docs/ is built
#   make security  bandit, pip-audit and a scan for secrets; what they find is fixed, or justified in pyproject.toml
#   make matrix  SIGKILL of worker and Temporal server at every point of a failover (MATRIX=promote,flip for some),
#                the evacuation of a region, disturbed at every point, and planned maintenance at every point
#   make histories  record again what the replay test replays
#   make dashboards  make Grafana's dashboard again from src/qnwis/metrics/dashboard.py
#   make screenshots  the pictures in docs/images again, of the console and of a report, from their tests
#   make fuzz    CASES=10000: made-up requests to the HTTP API, each answer held against its OpenAPI document
#   make bench   speed of planning, verification and simulation, and of the HTTP API with and without its door
#   make bench-simulator  ROUNDS=5: the simulator's median write gap of a killed node, beside the lab's
#   make gate    the RG-8 gate: targets, determinism, scenarios, histories, RBAC, audit, metrics, dashboards, docs
#   make interpreters  an environment for each other Python that is here, with which the gate compares
#   make bench-newcomer  from a clone of this commit to the first verified failover, part by part
#   make docs    the site of docs/ into site/; fails on any warning
#   make reference  make docs/reference and what else is made from the code again
#   make bench-rto  ROUNDS=3: write gaps beside other failover managers (SYSTEMS=ours,patroni,auto_failover,repmgr,floor for
#                some); as root, after make install-peers
#   make bench-overhead  ROUNDS=10: what a run takes beyond its calls, beside a plain script that makes the same
#   make soak    CYCLES=100 (MINUTES=60 for a time): failover and failback in turns under writes; nothing is lost, and
#                memory, descriptors, histories and databases level off
#   make soak-lease  MINUTES=60: is a healthy primary on a loaded machine ever fenced? (SETTING=fastest: by bench-rto's terms)
#   make bench-scale  CLUSTERS=10,100,1000: what it costs to hold them, and how that grows; after make install-peers, or
#                with ARGS=--no-blackbox
#   make test-containers  containers killed and cut off, where an engine answers
#   make install-system  the Debian packages that the whole test suite uses; install-peers: those of bench-rto and bench-scale
#   make lock    requirements/lock.txt again, after a change of pyproject.toml; wheel: what is installed elsewhere

# A lab starts dozens of Python processes, a test dozens of workflow sandboxes: they find compiled modules.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

CHAOS = $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(LASTS),--lasts $(LASTS)) $(ARGS)

.PHONY: demo demo-maintenance demo-region test check security matrix chaos chaos-simulated histories dashboards fuzz bench bench-simulator bench-overhead gate interpreters soak soak-lease clean install-system lock wheel bench-newcomer docs reference screenshots compose-demo test-containers bench-rto bench-scale install-peers

demo-maintenance: $(STAMP)
	@$(BIN)/qnwis-continuity lab demo-maintenance $(ARGS)

demo-region: $(STAMP)
	@$(BIN)/qnwis-continuity lab demo-region $(ARGS)

compose-demo: $(STAMP)
	@$(BIN)/qnwis-continuity lab demo-containers $(ARGS)

demo: $(STAMP)
	@$(BIN)/qnwis-continuity lab demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m tests.prepare
	@$(BIN)/python -m pytest -p tests.lanes --numprocesses $(or $(PROCESSES),3) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory docs

security: $(STAMP)
	@$(BIN)/python -m tests.security

matrix: $(STAMP)
	@MATRIX='$(MATRIX)' $(BIN)/python -m pytest tests/integration -m matrix -s $(ARGS)

test-containers: $(STAMP)
	@TESTCONTAINERS_RYUK_DISABLED=true $(BIN)/python -m pytest tests/containers -m containers $(ARGS)

chaos: $(STAMP)
	@$(CHAOS) $(if $(RUNS),--runs $(RUNS))

chaos-simulated: $(STAMP)
	@$(CHAOS) --simulated --runs $(or $(RUNS),$(if $(ONLY),0,10000))

histories: $(STAMP)
	@$(BIN)/python -m tests.integration.continuity.record_histories $(ARGS)

dashboards: $(STAMP)
	@$(BIN)/python -m qnwis.metrics.dashboard grafana/dashboards/continuity_ops.json

screenshots: $(STAMP)
	@QNWIS_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q -n0 tests/integration/continuity/test_console.py $(ARGS)

fuzz: $(STAMP)
	@QNWIS_FUZZ_CASES=$(or $(CASES),10000) $(BIN)/python -m pytest -s tests/unit/api/test_made_up_requests.py \
		tests/integration/continuity/test_api_made_up.py $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-rto: $(STAMP)
	@$(BIN)/python -m tests.bench.rto --rounds $(or $(ROUNDS),3) $(if $(SYSTEMS),--systems $(SYSTEMS)) $(ARGS)

bench-scale: $(STAMP)
	@$(BIN)/python -m tests.bench.scale $(if $(CLUSTERS),--clusters $(CLUSTERS)) $(ARGS)

bench-simulator: $(STAMP)
	@$(BIN)/python -m tests.bench.simulator --rounds $(or $(ROUNDS),5) $(ARGS)

bench-overhead: $(STAMP)
	@$(BIN)/python -m tests.bench.overhead --rounds $(or $(ROUNDS),10) $(ARGS)

gate: $(STAMP)
	@$(BIN)/python -m qnwis.scripts.qa.rg8_continuity_gate $(ARGS)

# `.venv-3.12` and so on: where the gate looks first.
interpreters: $(STAMP)
	@for python in $$($(BIN)/python -m qnwis.scripts.qa.rg8.determinism); do \
		venv=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		test -x $$venv/bin/python || $$python -m venv $$venv || exit 1; \
		echo "installing into $$venv …"; \
		$$venv/bin/python -m pip -q install --disable-pip-version-check --require-hashes -r requirements/lock.txt || exit 1; \
	done

bench-newcomer: $(STAMP)
	@$(BIN)/python -m tests.bench.newcomer $(ARGS)

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

reference: $(STAMP)
	@$(BIN)/python -m tests.documents.reference

soak: $(STAMP)
	@$(BIN)/python -m tests.bench.soak $(if $(CYCLES),--cycles $(CYCLES)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

soak-lease: $(STAMP)
	@$(BIN)/python -m tests.bench.soak_lease --minutes $(or $(MINUTES),60) $(if $(SETTING),--setting $(SETTING)) $(ARGS)

wheel: $(STAMP)
	$(BIN)/python -m pip -q wheel --no-deps -w dist .

$(STAMP): requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python {v.major}.{v.minor} found; 3.11 or newer is needed (make PYTHON=python3.12 …)" or 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo 'python3 -m venv failed; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@echo 'installing into .venv (about a minute, once) …'
	@$(BIN)/python -m pip -q install --disable-pip-version-check --require-hashes -r requirements/lock.txt
	@$(BIN)/python -m pip -q install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The packages of a Debian system that the whole test suite uses; run as root (CI does). Several are services:
# the tests run them by themselves, and while they are installed Debian starts none (nameservers, Prometheus, etcd).
POLICY ?= /usr/sbin/policy-rc.d
install-system:
	apt-get update -qq
	test -e $(POLICY) || { trap 'rm -f $(POLICY)' EXIT && printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod 755 $(POLICY); }; \
	sed -e 's/#.*//' requirements/debian.txt | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y -qq --no-install-recommends

# What `make bench-rto` and `make bench-scale` measure besides; run as root. Nothing is started as a service.
install-peers:
	apt-get update -qq
	policy=/usr/sbin/policy-rc.d; \
	if ! test -e $$policy; then trap "rm $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod 755 $$policy; fi; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 etcd-server \
		postgresql-15-auto-failover pg-auto-failover-cli postgresql-15-repmgr repmgr iproute2 nftables util-linux \
		prometheus-blackbox-exporter

lock:
	$(BIN)/uv pip compile --universal --generate-hashes -q --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements/lock.txt

clean:
	rm -rf .venv dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
