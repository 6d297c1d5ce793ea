# Needs Python 3.11 or newer with venv, make and pip; everything else goes into $(VENV).
#
#   make demo     serve the demo checkpoint on a local Ray, ask it three prompts, shut down
#   make test     unit tests, then the tests on a local Ray
#   make check    style, types, import contracts, protos, drift of the generated stubs
#   make proto    generate the stubs anew
#   make bench    microseconds per dispatch; time until ready
#   make bench-serve   the server under load, and what the engine costs (20 minutes)
#   make chaos    kills, freezes, slow-downs, scalings under load, every token compared (45 minutes); chaos-short: a few
#   make multihost   several hosts on this machine, lost, cut off, drained (40 minutes; needs root); multihost-short: two
#   make daily    signals, Ray's own processes gone, full disks, a pause (15 minutes; needs root); daily-short: a few
#   make abuse    what strangers send, beside 16 ordinary streams (10 minutes); abuse-short: 3 seconds of each
#   make clients  openai, LangChain, litellm, lm-eval, benchmarks and others, each in an environment of its own, against
#                 a server (installs them, then 15 minutes); clients-short: sockets and openai
#   make fuzz     20,000 requests that no sane client sends
#   make gpu      everything a card must show, in MINUTES=9; results in OUT=build/gpu; gpu-rehearsal: the same on a CPU, tiny
#   make gpu-bundle   what a machine with a card and torch, but no network, lacks: Ray, flash-attn's source, small wheels
#   make clean    remove caches and build products (the environment stays)

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

# Ray 2.60 turns token authentication on by itself in a local ray.init(): say what is meant.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test unit integration refs-short fuzz chaos chaos-short multihost multihost-short daily daily-short abuse abuse-short clients clients-short gpu gpu-rehearsal \
        gpu-bundle check lint types contracts protos stubs proto bench bench-serve clean venv venv-runtime constraints

help:
	@sed -n 's/^#   //p' Makefile

# ---------------------------------------------------------------------------------- environment
# Two stamps: `demo` needs the run-time packages only; `test`, `check` and the rest need those of a
# developer too. torch goes first and alone, so that nothing else's range picks another build of it.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/&/p' constraints.txt)
RUNTIME := $(VENV)/.eightwinds-runtime
DEVELOPER := $(VENV)/.eightwinds-developer

venv: $(DEVELOPER)
venv-runtime: $(RUNTIME)

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo 'eightwinds needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
@echo "installing $(TORCH), then eightwinds $(2) (minutes, the first time)"
@$(PIP) $(TORCH)
@$(PIP) -c constraints.txt -e '$(1)'
endef

$(RUNTIME): pyproject.toml constraints.txt
	$(call install,.,with what it needs to run)
	@touch $@

$(DEVELOPER): pyproject.toml constraints.txt
	$(call install,.[dev],with its tools)
	@touch $(RUNTIME) $@

constraints: $(DEVELOPER)  ## pin what is installed now
	@echo 'writing constraints.txt'
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip list --format=freeze --disable-pip-version-check --exclude-editable --exclude pip \
	   | sed 's/+[a-z0-9.]*$$//'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(RUNTIME) $(DEVELOPER)

# ----------------------------------------------------------------------------------------- use
demo: $(RUNTIME)
	@echo 'demo: eight experts on a local Ray'
	@$(BIN)/python -m examples.demo

bench: $(DEVELOPER)
	@echo 'bench: dispatch, then startup'
	@$(BIN)/python -m benchmarks.dispatch
	@$(BIN)/python -m benchmarks.startup

bench-serve: $(DEVELOPER)
	@echo 'bench: the server under load (20 minutes)'
	@$(BIN)/python -m benchmarks.serve
	@$(BIN)/python -m benchmarks.engine

# --------------------------------------------------------------------------------------- tests
# Unit and integration tests apart: what the ones forbid, the others need. Unit tests of a file share what they set up,
# so a file is one process's; integration tests fill the machine by themselves.
test: unit integration

unit: $(DEVELOPER)
	@echo 'test: unit'
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile tests/unit

fuzz: $(DEVELOPER)
	@echo 'fuzz: $(or $(FUZZ),20000) requests'
	@EIGHTWINDS_FUZZ=$(or $(FUZZ),20000) $(BIN)/python -m pytest -q -s tests/unit/cluster/gateway/test_fuzz.py

refs-short: $(DEVELOPER)
	@echo 'refs-short: identity over object references, which are not the default'
	@EIGHTWINDS_TRANSPORT=object_refs $(BIN)/python -m pytest -q tests/integration/test_identity.py

chaos: $(DEVELOPER)
	@echo 'chaos: 280 kills, freezes, slow-downs and scalings, then some in bfloat16 (45 minutes)'
	@$(BIN)/python -m tests.chaos --publish docs/chaos/one_machine.md
	@$(BIN)/python -m tests.chaos kill-one-of-two kill-head --times 20 --set model.dtype=bfloat16 \
	    --publish docs/chaos/bfloat16.md

chaos-short: $(DEVELOPER)
	@echo 'chaos: each a few times'
	@$(BIN)/python -m tests.chaos --short

multihost: $(DEVELOPER)
	@echo 'multihost: three hosts in namespaces of their own, Ray with its autoscaler, then clusters of their own (40 minutes)'
	@$(BIN)/python -m tests.multihost --publish docs/chaos/hosts.md

multihost-short: $(DEVELOPER)
	@echo 'multihost: the most telling ones, once'
	@$(BIN)/python -m tests.multihost --short --skip-unable

# Where gpu-bundle/ lies, torch is the machine's own and the rest comes from the bundle alone; elsewhere from $(VENV).
OUT ?= build/gpu
gpu: $(if $(wildcard gpu-bundle/manifest.json),.gpu-site/.installed,$(DEVELOPER))
	@echo 'gpu: what a card must show, in $(or $(MINUTES),9) minutes; results in $(OUT)'
	@$(if $(wildcard gpu-bundle/manifest.json),PYTHONPATH=$(CURDIR)/.gpu-site:$(CURDIR) $(PYTHON),$(BIN)/python) \
	    -m benchmarks.gpu --out $(OUT) --minutes $(or $(MINUTES),9)

.gpu-site/.installed: gpu-bundle/manifest.json
	@$(PYTHON) -m benchmarks.gpu.bundle install --from gpu-bundle --to .gpu-site
	@touch $@

gpu-rehearsal: $(DEVELOPER)
	@echo 'gpu-rehearsal: the steps of make gpu on the CPU, tiny'
	@$(BIN)/python -m benchmarks.gpu --rehearsal --out build/gpu-rehearsal --minutes 5

gpu-bundle: $(DEVELOPER)
	@echo 'gpu-bundle: what a machine with a card, but without a network, lacks'
	@$(BIN)/python -m benchmarks.gpu.bundle make --to gpu-bundle

daily: $(DEVELOPER)
	@echo 'daily: what a machine goes through (15 minutes)'
	@$(BIN)/python -m tests.daily --publish docs/chaos/daily.md

daily-short: $(DEVELOPER)
	@echo 'daily: a few, once'
	@$(BIN)/python -m tests.daily --short

abuse: $(DEVELOPER)
	@echo 'abuse: what strangers send, beside 16 streams (10 minutes)'
	@$(BIN)/python -m tests.abuse --publish docs/abuse.md

abuse-short: $(DEVELOPER)
	@echo 'abuse: a few seconds of each'
	@$(BIN)/python -m tests.abuse --short

# Environments of clients are made from the index and kept in build/clients. The short form skips what has none.
clients: $(DEVELOPER)
	@echo 'clients: real programs against the OpenAI-compatible door'
	@$(BIN)/python -m tests.clients

clients-short: $(DEVELOPER)
	@echo 'clients: sockets and openai'
	@$(BIN)/python -m tests.clients --short --skip-unable

integration: unit
	@echo 'test: integration'
	@$(if $(wildcard tests/integration/test_*.py tests/integration/*/test_*.py),\
	    $(BIN)/python -m pytest -q tests/integration,echo 'no integration tests yet')

# -------------------------------------------------------------------------------------- checks
CODE := $(patsubst %/,%,$(wildcard cluster/ actors/ model/ protos/ tests/ benchmarks/ examples/))

check: lint types contracts protos stubs

lint: $(DEVELOPER)
	@echo 'check: style'
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet --output-format concise . \
	    || { echo 'mend it with: $(BIN)/ruff format .' >&2; exit 1; }

types: $(DEVELOPER)
	@echo 'check: types'
	@$(BIN)/mypy --strict --no-error-summary $(CODE)

contracts: $(DEVELOPER)
	@echo 'check: import contracts'
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo

# The published protos, to compare with: the first of these refs that has any.
PUBLISHED ?= $(firstword $(foreach ref,origin/main main,\
    $(if $(shell git rev-parse --quiet --verify $(ref):protos/buf.yaml 2>/dev/null),$(ref))))

protos: $(DEVELOPER)
	@echo 'check: protos$(if $(PUBLISHED),; compatible with $(PUBLISHED))'
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code protos
	@$(if $(PUBLISHED),$(BIN)/buf breaking protos --against '.git#ref=$(PUBLISHED)$(,)subdir=protos',true)

# $(1): the folder to write to. The plugins stand beside the interpreter.
protoc = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) \
    --grpc_python_out=$(1) --mypy_out=quiet,readable_stubs:$(1) --mypy_grpc_out=quiet:$(1) protos/eightwinds/v1/*.proto
, := ,

proto: $(DEVELOPER)
	@echo 'proto: generating the stubs'
	@$(call protoc,.)

stubs: $(DEVELOPER)
	@echo 'check: drift of the stubs'
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call protoc,"$$fresh") \
	    && diff -rq -x '*.proto' -x __init__.py -x __pycache__ protos/eightwinds "$$fresh/protos/eightwinds" \
	    || { echo 'the committed stubs are not what the protos say: run make proto' >&2; exit 1; }

clean:
	@echo 'clean: caches and build products (remove the environment with: rm -r $(VENV))'
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(CODE) scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
