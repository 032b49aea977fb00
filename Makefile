# Two commands do everything on a fresh machine: `make demo` and `make test`.
#   make test PYTHON=python3.12 PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
# Two workers take up to 4 GB of memory each; the tests of a file run in one, which makes its
# fixtures once, and files run in the order of tests/conftest.py. A worker that crashes is not
# replaced: pytest-xdist may then wait for ever.
PYTEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
INSTALLED_FLAGS ?= $(PYTEST_FLAGS)
BIN := .venv/bin
# TensorRT's builder without a GPU; says why in one line where that cannot be had.
BUILDER := tools/builder_on_cpu/setup.sh .builder $(BIN)/python $(PIP_FLAGS)

# A real Triton server with its Python backend; says why in one line where that cannot be had.
TRITON := tools/triton_server/setup.sh .triton $(BIN)/python $(PIP_FLAGS)

# Runtimes of others, from npm and PyPI; says why in one line where they cannot be had.
FOREIGN := tools/foreign/setup.sh .foreign $(BIN)/python $(PIP_FLAGS)

# What runs on the installed wheel, without PyTorch; see tools/installed.
INSTALLED_TESTS := $(addprefix tests/test_,formats.py installed.py) $(filter-out \
  %/backends/trt/test_backend.py %/cuda/test_arrays.py %/runtime/test_interpolator.py %/runtime/test_package.py \
  %/bench/test_latency.py %/harness/test_roofline.py %/quality/test_cluster.py \
  %/quality/test_metrics.py %/quality/test_parity.py %/quality/test_protocols.py %/runs/test_plain_engine.py \
  %/runs/test_pytorch.py, $(sort $(shell find tests/runtime tests/bench -name 'test_*.py'))) \
  $(addprefix tests/export/,graph/test_for_cpu.py int8/test_build.py triton/test_repository.py)
# Of two targets at a time, where this make can: macOS has 3.81.
WHOLE_OUTPUTS := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
SHARED_EXPORTS := IFRNET_TEST_EXPORTS=$(CURDIR)/.exports
ifneq (,$(findstring export,$(EXTRAS)))
# With a PyTorch of its own: what it exports is what is tested.
INSTALLED_TESTS += $(addprefix tests/,export/gate/test_gate.py export/graph/test_passes.py \
  export/test_build_engine.py export/test_to_onnx.py ifrnet_model/test_checkpoint.py \
  runtime/test_interpolator.py)
WITHOUT_TORCH := env -u IFRNET_TEST_EXPORTS
EXPORTS :=
else
WITHOUT_TORCH := IFRNET_WITHOUT_TORCH=1 $(SHARED_EXPORTS)
EXPORTS := .exports/made
endif

.PHONY: demo test builder-at-hand triton-at-hand foreign-at-hand test-builder test-triton test-foreign test-examples test-newest test-lowest test-kit docs report models fuzz soak mutate lint format clean

# In an environment without PyTorch, unless that of the tests is there.
DEMO := $(or $(wildcard .venv/installed),.venv-demo/installed)
demo: $(DEMO)
	@$(dir $(DEMO))bin/python tools/demo.py

# The graphs that the first tests export serve the others, which run two at a time in one process
# each, the longest first.
test: .venv/installed
	@$(MAKE) --no-print-directory --jobs=2 $(WHOLE_OUTPUTS) lint docs
	rm -rf .exports && mkdir .exports
	$(SHARED_EXPORTS) $(BIN)/python -m pytest $(PYTEST_FLAGS)
	$(SHARED_EXPORTS) $(BIN)/python -m pytest -q --setup-only -m installed \
	  tests/test_installed.py >.exports/log || { cat .exports/log; exit 1; }
	touch .exports/made
	@$(SHARED_EXPORTS) $(MAKE) --no-print-directory --jobs=2 $(WHOLE_OUTPUTS) \
	  INSTALLED_FLAGS= test-newest test-lowest test-kit triton-at-hand builder-at-hand foreign-at-hand

builder-at-hand: .venv/installed
	@if why=$$($(BUILDER) 2>&1); then $(MAKE) --no-print-directory test-builder; \
	else echo "SKIPPED the tests with TensorRT's real builder: $$why"; fi

triton-at-hand: .venv/installed
	@if why=$$($(TRITON) 2>&1); then $(MAKE) --no-print-directory test-triton; \
	else echo "SKIPPED the tests with a real Triton server: $$why"; fi

foreign-at-hand: .venv/installed
	@if why=$$($(FOREIGN) 2>&1); then $(MAKE) --no-print-directory test-foreign; \
	else echo "SKIPPED the tests with runtimes of others: $$why"; fi

test-builder: .venv/installed
	@$(BUILDER)
	. .builder/env.sh && $(BIN)/python -m pytest -m builder tests/test_builder_real.py

test-triton: .venv/installed
	@$(TRITON)
	. .triton/env.sh && $(BIN)/python -m pytest -m triton tests/test_triton_server.py

test-foreign: .venv/installed
	@$(FOREIGN)
	$(BIN)/python -m pytest -m foreign tests/test_foreign_runtimes.py tests/test_examples.py

# The programs of examples/; those that need other tools than the packages skip without them.
test-examples: .venv/installed
	@$(FOREIGN)
	$(BIN)/python -m pytest -m foreign tests/test_examples.py

# The wheel with the newest and with the lowest releases of what it needs.
test-newest test-lowest: test-%: .venv/installed $(EXPORTS)
	@echo "installing the wheel with the $* releases of what it needs into .$*, some minutes"
	@status=0; why=$$(tools/installed/setup.sh .$* $* $(PIP_FLAGS) 2>&1) || status=$$?; \
	if [ $$status = 3 ]; then echo "SKIPPED the tests with the $* releases: $$why"; exit 0; fi; \
	echo "$$why"; [ $$status = 0 ] || exit $$status; \
	$(WITHOUT_TORCH) .$*/bin/pytest $(INSTALLED_FLAGS) -m "not builder and not triton" $(INSTALLED_TESTS)

# A GPU machine's Python 3.10 with the wheels that it is given, over the fakes.
test-kit: .venv/installed
	@status=0; why=$$($(BIN)/python tools/gpu_kit.py .kit310 $(PIP_FLAGS) 2>&1) || status=$$?; \
	if [ $$status = 3 ]; then echo "SKIPPED the tests of the GPU kit: $$why"; exit 0; fi; \
	echo "$$why"; [ $$status = 0 ] || exit $$status; \
	$(BIN)/python -m pytest -m kit tests/test_gpu_kit.py

# Graphs and reference frames of the fixtures, for environments without PyTorch.
.exports/made: .venv/installed tests/conftest.py tests/test_installed.py \
  $(shell find tests/support ifrnet_model export runtime -name '*.py' -o -name '*.safetensors')
	rm -rf .exports && mkdir .exports
	$(SHARED_EXPORTS) $(BIN)/python -m pytest $(PYTEST_FLAGS) -q --setup-only \
	  -m "not builder and not triton" $(INSTALLED_TESTS) >.exports/log || { cat .exports/log; exit 1; }
	touch $@

# The tables of README and documentation from the committed evidence; no number is typed.
report: .venv/installed
	$(BIN)/python -m bench.report bench/results bench/results/alternatives \
	  --readme README.md docs/benchmarks.md docs/cpu.md --html report.html

# The models that are shipped; after a change of the demo weights or of the exported graph.
models: .venv/installed
	for backend in onnxruntime openvino; do $(BIN)/python -m export.build_engine --weights demo \
	  --backend $$backend --compact --output runtime/models/demo_$$backend.onnx || exit 1; done

# Mutated files, values and servers for ten minutes; lists every input with a bad outcome.
fuzz: .venv/installed
	PYTHONPATH=tools $(BIN)/python -m fuzz --cases 1000000 --seconds 600 $(FUZZ_FLAGS)

# 10,000 inferences and 1,000 openings with each CPU backend, and 50 videos: nothing may grow.
soak: .venv/installed
	$(BIN)/python tools/soak.py $(SOAK_FLAGS)

# How many small changes of the product the tests notice; an hour.
mutate: .venv/installed
	PYTHONPATH=tools $(BIN)/python -m mutation $(MUTATE_FLAGS)

# The documentation as a site, in build/site; a broken link or reference is an error.
docs: .venv/installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html: the documentation; the search works on a server only:" \
	  "python3 -m http.server --directory build/site"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Both show pip's progress bars on a terminal.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv .venv
	@tools/pip_install.sh "PyTorch, ONNX Runtime, OpenVINO, Ray and what the tests need into .venv: \
	about 0.6 GB to download with PyTorch for the CPU (see CONTRIBUTING.md), several GB with CUDA" \
	  $(BIN)/python $(PIP_FLAGS) -c constraints.txt -e ".[cpu,export,video,bench,openvino,cluster,triton,docs,dev]"
	@touch $@

.venv-demo/installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv .venv-demo
	@tools/pip_install.sh "OpenVINO, PyAV and NumPy into .venv-demo: about 115 MB to download" \
	  .venv-demo/bin/python $(PIP_FLAGS) -c constraints.txt -e ".[openvino,video]"
	@touch $@

clean:
	rm -rf build/site .venv .venv-demo .builder .triton .foreign .newest .lowest .exports .kit310 demo report.html *.egg-info .mypy_cache .pytest_cache .ruff_cache
