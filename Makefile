# Everything a contributor does. `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt requirements-data.txt | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup test native-test lint format demo bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## create .venv with everything, pinned

$(STAMP): pyproject.toml constraints.txt requirements-data.txt CMakeLists.txt $(wildcard native/*.h native/*.cpp)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-data.txt
	@rm -f $(VENV)/.installed-*; touch $@

test: setup native-test ## run the tests, a file on each core, and those of the kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

native-test: setup ## test the C++ kernels here, plain and under sanitizers, and those for ARM where qemu-user and a cross compiler are
	@if ! command -v $${CXX:-c++} >/dev/null; then echo "Kernels not tested: no C++ compiler"; exit 0; fi; set -e; \
	build() { $(BIN)/cmake -S . -B build/$$1 -DLESSEN_TESTS=ON $$2 >/dev/null && $(BIN)/cmake --build build/$$1 --parallel 2 >/dev/null; }; \
	build native; build/native/kernels; \
	build sanitized -DLESSEN_SANITIZE=ON; echo "under sanitizers:"; build/sanitized/kernels; \
	if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64-static >/dev/null; then \
	  CXX=aarch64-linux-gnu-g++ build aarch64 "-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64"; \
	  qemu-aarch64-static -L /usr/aarch64-linux-gnu build/aarch64/kernels; \
	else echo "ARM not tested: apt-get install g++-aarch64-linux-gnu qemu-user-static"; fi

lint: setup ## check style and types
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

format: setup ## rewrite the code in the house style
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

demo: setup ## the whole story on a real model and real reviews
	$(BIN)/lessen demo

bench: setup ## all figures of the README, in hours; LESSEN_DATA names the folder with the data
	@test -d "$$LESSEN_DATA" || { echo "set LESSEN_DATA to the folder with sst2/ and the others"; exit 2; }
	$(BIN)/python benchmarks/dense_speed.py
	$(BIN)/python benchmarks/sst2_exits.py
	$(BIN)/python benchmarks/promise.py
	$(BIN)/python benchmarks/exit_latency.py
	$(BIN)/python benchmarks/token_quality.py
	$(BIN)/python benchmarks/token_ablation.py
	$(BIN)/python benchmarks/token_points.py
	$(BIN)/python benchmarks/token_speed.py
	$(BIN)/python benchmarks/width_quality.py
	$(BIN)/python benchmarks/width_quality.py --model builtin:mpnet-l12 --seeds 0 --ways calibrated
	$(BIN)/python benchmarks/width_speed.py
	$(BIN)/python benchmarks/bits_quality.py
	$(BIN)/python benchmarks/bits_warm.py
	$(BIN)/python benchmarks/bits_speed.py
	$(BIN)/python benchmarks/generator_exits.py
	$(BIN)/python benchmarks/generator_decode.py
	$(BIN)/python benchmarks/prefill_tokens.py
	$(BIN)/python benchmarks/seq2seq_quality.py
	$(BIN)/python benchmarks/tables.py

docs: setup ## regenerate docs/cli.md and the JSON schemas
	$(BIN)/python docs/generate.py

clean: ## remove the environment and caches
	rm -rf $(VENV) build .cache .pytest_cache .mypy_cache .ruff_cache
