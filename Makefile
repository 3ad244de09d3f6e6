# The developer's front door: `make` alone says what there is.
#
# Everything lives in .venv and build/. Stamps in .venv remember what was installed, so pip runs
# again only when pyproject.toml or a native source changed; Python edits need nothing.
PYTHON ?= python3
MODEL ?=
ARGS ?=
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || echo 2)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

SOURCES := edgeinfer converters tests benchmarks
CXX_FILES = $(shell git ls-files -co --exclude-standard 'native/**.h' 'native/**.cc' 'native/**.inl' | sort -u)
BUILD_INPUTS := pyproject.toml \
  $(shell find native -type f -not -path 'native/tests/*' -not -path 'native/capi/examples/*' 2>/dev/null)
BUILD_TOOLS := "cmake>=3.21" "ninja>=1.11" "nanobind>=3.1,<4" "scikit-build-core>=0.11"

# An editable install in redirect mode: Python files are read from the checkout, the extension is
# built in build/dev and copied into .venv. scikit-build-core's editable.rebuild would run CMake at
# every import instead (0.02 s becomes 0.08 s), needs the compiler each time the program starts
# and lets a half-edited source break it; the stamp rebuilds when a native source changed.
EDITABLE := --no-build-isolation --config-settings=build-dir=build/dev

# Standard output belongs to the program that is run (`echo hi | make chat | cat`).
say = @printf '\033[1m==>\033[0m %s\n' $(1) >&2
.SILENT:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup chat test test-all test-native test-arm lint format types stubs bench wheel check clean

help: ## Show this list
	awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# ---- installation ----------------------------------------------------------------------------

$(VENV)/pyvenv.cfg:
	$(call say,"Creating $(VENV) with $$($(PYTHON) --version)")
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edgeinfer needs Python 3.10 or newer: make PYTHON=python3.11")' >&2
	$(PYTHON) -m venv $(VENV) >&2 || { rm -rf $(VENV); \
	  echo "python3 -m venv failed; on Debian: sudo apt install python3-venv" >&2; exit 1; }

# Debian keeps Python.h in a package of its own; other Pythons bring it along.
python_header = import os, sysconfig; print(os.path.join(sysconfig.get_path("include"), "Python.h"))

$(VENV)/.tools: Makefile | $(VENV)/pyvenv.cfg
	test -e "$$($(BIN)/python -c '$(python_header)')" || \
	  .ci/debian "lib$$($(BIN)/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-dev"
	command -v "$${CXX:-g++}" >/dev/null || .ci/debian g++
	$(call say,"Installing the build tools (cmake ninja nanobind)")
	$(BIN)/python -m pip install -q $(BUILD_TOOLS) >&2
	touch $@

$(VENV)/.installed: $(BUILD_INPUTS) $(VENV)/.tools
	$(call say,"Building the native engine and installing edgeinfer ($(CMAKE_BUILD_PARALLEL_LEVEL) cores)")
	$(BIN)/python -m pip install -q $(EDITABLE) -e . >&2
	touch $@

# The extras: .venv/.with-test, .venv/.with-dev, .venv/.with-peers. The package itself is already
# installed, so pip adds the missing libraries only.
$(VENV)/.with-%: pyproject.toml | $(VENV)/.installed
	$(call say,"Installing the libraries of edgeinfer[$*]")
	$(BIN)/python -m pip install -q $(EDITABLE) -e '.[$*]' >&2
	touch $@

setup: $(VENV)/.installed ## Make .venv and build and install the package

# ---- running ---------------------------------------------------------------------------------

chat: $(VENV)/.installed ## Chat with a model (MODEL=..., ARGS=...; default smollm2)
	$(BIN)/edgeinfer chat $(if $(MODEL),-m $(MODEL)) $(ARGS)

bench: $(VENV)/.with-peers ## Compare speed with llama.cpp and the machine's ceilings (ARGS=...)
	$(BIN)/python benchmarks/compare.py $(ARGS)

# ---- tests -----------------------------------------------------------------------------------

test: $(VENV)/.installed $(VENV)/.with-test ## Run the fast tests (ARGS=... go to pytest)
	$(BIN)/python -m pytest -q -m "not peer and not slow" $(ARGS)

# Libraries for other machines are run by emulators, or read by the compilers of their kernels.
# Without the means to install those, pytest says which tests it left out.
test-all: export EDGEINFER_TVM_AARCH64 ?= $(CURDIR)/$(VENV)/tvm-aarch64
test-all: $(VENV)/.installed $(VENV)/.with-peers $(VENV)/.with-emulators ## Run every test, also against torch, transformers and llama.cpp
	$(BIN)/python -m pytest -q $(ARGS)

$(VENV)/.with-emulators: Makefile pyproject.toml .ci/tvm_aarch64 | $(VENV)/.with-peers
	-.ci/debian g++-aarch64-linux-gnu qemu-user-static clang mesa-vulkan-drivers
	$(call say,"Fetching TVM's runtime for ARM")
	rm -rf $(VENV)/tvm-aarch64
	$(BIN)/python .ci/tvm_aarch64 $(VENV)/tvm-aarch64 >&2
	touch $@

test-native: $(VENV)/.tools ## Run the C++ tests under AddressSanitizer and UBSan
	.ci/debian doctest-dev
	cmake -S native -B build/asan -G Ninja -DEI_PYTHON=OFF -DEI_TESTS=ON -DEI_SANITIZE=ON >&2
	cmake --build build/asan >&2
	ctest --test-dir build/asan --output-on-failure

test-arm: $(VENV)/.tools ## Cross-build and run the C++ tests for 64-bit ARM under qemu
	.ci/debian doctest-dev g++-aarch64-linux-gnu qemu-user-static
	native/tests/run_arm.sh

wheel: $(VENV)/.tools ## Build a wheel and test it in a fresh environment
	.ci/wheel

# ---- habits ----------------------------------------------------------------------------------

lint: $(VENV)/.installed $(VENV)/.with-dev ## Check style, layers, types and the stub
	ruff check
	ruff format --check
	clang-format --dry-run -Werror $(CXX_FILES)
	lint-imports
	mypy
	$(call stub,build/_native.pyi)
	diff -u edgeinfer/_native.pyi build/_native.pyi || \
	  { echo "edgeinfer/_native.pyi is stale: make stubs" >&2; exit 1; }

types: $(VENV)/.installed $(VENV)/.with-dev ## Check the types only
	mypy

format: $(VENV)/.with-dev ## Rewrite Python and C++ in the house style
	ruff check --fix-only
	ruff format
	clang-format -i $(CXX_FILES)

stub = mkdir -p $(dir $(1)) && python -m nanobind.stubgen -q -m edgeinfer._native -o $(1) && \
  ruff check -q --fix-only --config pyproject.toml $(1) && ruff format -q --config pyproject.toml $(1)

stubs: $(VENV)/.installed $(VENV)/.with-dev ## Rewrite edgeinfer/_native.pyi from the extension
	$(call stub,edgeinfer/_native.pyi)

check: lint test ## What CI runs

clean: ## Remove build outputs and caches (rm -r .venv for the environment too)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find edgeinfer converters tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f $(VENV)/.installed
