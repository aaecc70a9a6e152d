# Each target installs what it lacks first; CMake does the work (see CMakePresets.json).

SHELL  := /bin/bash
PREFIX ?= /usr/local
BUILD  := cmake --build --preset
quiet  := >/dev/null

.PHONY: all program serve arm64 arm64-dynamic android demo demo-model test test-interop test-interop-full test-npu test-hub test-schema test-page test-python test-notebooks test-cluster test-serve wheel wheel-arm64 test-python-arm test-full test-arm bench bench-peers check check-docs fuzz install clean help

all: program ## build the program and the libraries, and llguidance where cargo is: build/release
	@tools/llguidance.sh build/release || [ $$? = 3 ]

program:
	@tools/setup.sh build
	@cmake --preset release $(quiet)
	@$(BUILD) release
	@if [ -x build/release/fastvlm ]; then echo "built: build/release/fastvlm"; fi

arm64: ## one program for any 64-bit Arm Linux and for Android's shell, CPU only: build/arm64-static
	@tools/build-arm.sh arm64-static

arm64-dynamic: ## for 64-bit Arm Linux with glibc, also on Qualcomm's NPU: build/arm64-dynamic
	@tools/build-arm.sh arm64-dynamic

android: ## for Android 9 and later, also on the phone's NPU; needs ANDROID_NDK_ROOT: build/android
	@tools/build-arm.sh android

demo: program ## describe an image and answer questions about it
	@tools/demo.sh

demo-model: ## pack models/demo again, for the program to carry
	@tools/setup.sh build
	@tools/demo-model.sh

test: ## every test that needs no weights and no network, also under sanitizers and for Arm
	@tools/setup.sh build check arm
	@tools/test.sh

test-interop: all ## exported models in ONNX Runtime, transformers.js and others, from the package indexes
	@tools/setup.sh interop
	@tools/test-interop.sh

test-interop-full: all ## the same and transformers, llama.cpp and Genie: packages of several gigabytes
	@tools/setup.sh interop
	@tools/test-interop.sh onnx tokenizers js transformers llama genie

test-npu: all ## contexts for Qualcomm's NPU, compiled and run by Qualcomm's libraries (a wheel of 100 MB)
	@tools/test-npu.sh

test-hub: all ## fastvlm hub with Qualcomm's real AI Hub client, from the package index, against a local service
	@tools/test-hub.sh

serve: all ## the server and its page on the demonstration model: http://127.0.0.1:9931
	@build/release/fastvlm serve

test-page: all ## the server's page in headless Chromium
	@tools/setup.sh page
	@tools/test-page.sh

test-schema: all ## answers by JSON schema with the real llguidance, which cargo builds
	@tools/test-schema.sh

test-python: ## the wheel in bare environments of every Python that is here: pip install, types, examples
	@tools/test-python.sh

test-notebooks: all ## the notebooks of examples/notebooks print what they hold
	@tools/test-python.sh notebooks

test-cluster: ## the recipes of examples/cluster: Ray, Spark, Slurm, a worker of each killed (packages of 500 MB)
	@tools/test-cluster.sh

wheel: ## the Python package, for x86-64 Linux with glibc 2.28 or later: build/wheels
	@tools/wheel.sh x86_64

wheel-arm64: ## the same for 64-bit Arm
	@tools/wheel.sh aarch64

test-python-arm: ## that wheel with an Arm Python under qemu
	@tools/test-python.sh arm

test-serve: all ## fastvlm serve with OpenAI's, Ollama's and other clients, from the package indexes
	@tools/setup.sh interop
	@tools/test-serve.sh

test-full: all ## the full-size 0.5B model against values recorded from the reference
	@tools/test-full.sh

test-arm: ## the whole program for 64-bit Arm, and the static one as in Android's shell, under qemu
	@tools/setup.sh build arm
	@tools/test.sh whole-arm phone

bench: all ## time every stage on this machine
	@tools/bench.sh

bench-peers: all ## other engines on the same weights, in temporary environments (PEERS=--help)
	@python3 bench/peers/run.py $(PEERS)

check: ## warnings as errors (gcc, clang), floors, format, headers, ABI, exported names, all tests
	@tools/setup.sh build check arm
	@tools/check/check.sh

check-docs: all ## commands and figures of README and docs, run again and compared
	@tools/check/docs.py

fuzz: ## run every fuzzer for FUZZ_SECONDS (60)
	@tools/setup.sh build check
	@tools/fuzz.sh

install: all ## into PREFIX (/usr/local)
	@cmake --install build/release --prefix $(PREFIX)

clean: ## remove build/
	@rm -rf build

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
