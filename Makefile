# The front door. `make chat` and `make test` work straight after cloning; `make help` lists the rest.
# The build itself is meson's (meson.build); the program is build/qiusuo.

BUILD  := build
PREFIX ?= /usr/local
ARGS   ?=
NINJA  := $(shell command -v ninja 2>/dev/null || command -v ninja-build 2>/dev/null || echo ninja)

# Silent unless something goes wrong.
build = out=$$($(NINJA) -C $(BUILD) $(1) 2>&1) || { printf '%s\n' "$$out"; exit 1; }

.DEFAULT_GOAL := all
.PHONY: all chat test bench install uninstall fuzz clean help packages

all: $(BUILD)/build.ninja
	@$(call build,)
	@cat $(BUILD)/features.txt
	@echo "The program is $(BUILD)/qiusuo; 'make chat' talks to the default model."

packages:
	@tools/packages.sh build >&2

# Only a missing build folder is set up; ninja itself runs meson again when a meson.build changes.
$(BUILD)/build.ninja: | packages
	@echo "Setting up $(BUILD)/" >&2
	@meson setup $(BUILD) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@mv $(BUILD).log $(BUILD)/setup.log
	@echo "Building (about a minute the first time)" >&2

# On a terminal the program gets a process group of
# its own (set -m), so that Ctrl-C ends an answer and not make.
chat: $(BUILD)/build.ninja
	@$(call build,qiusuo)
	@if [ -t 0 ] && [ -t 1 ]; then set -m; $(BUILD)/qiusuo chat $(ARGS); \
	 else exec $(BUILD)/qiusuo chat $(ARGS); fi

test: $(BUILD)/build.ninja
	@tools/packages.sh test
	@python3 tools/run_tests.py --ninja $(NINJA)

# Also leaves the numbers as CSV in bench/: runs.csv and, kernel by kernel, kernels.csv.
bench: $(BUILD)/build.ninja
	@$(call build,qiusuo)
	@$(BUILD)/qiusuo bench --csv $(ARGS) >bench/runs.csv
	@column -s, -t bench/runs.csv 2>/dev/null || cat bench/runs.csv
	@$(BUILD)/qiusuo bench --kernels --csv >bench/kernels.csv
	@echo "Written: bench/runs.csv, bench/kernels.csv"

install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX) >/dev/null
	@$(call build,)
	meson install -C $(BUILD) --no-rebuild
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

uninstall: $(BUILD)/build.ninja
	$(NINJA) -C $(BUILD) uninstall

# A minute for each target; FUZZ_SECONDS changes that.
FUZZ_SECONDS ?= 60
fuzz: $(BUILD)/build.ninja
	@tools/packages.sh fuzz
	@tools/fuzz.sh $(NINJA) $(FUZZ_SECONDS)

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz

help:
	@echo "make           builds the program and the examples (installs what that needs)"
	@echo "make chat      builds, then talks to the default model"
	@echo "make test      installs what the tests need, builds and runs them all"
	@echo "make bench     measures this machine and the default model"
	@echo "make install   program, default model, library, headers, man page (PREFIX, DESTDIR)"
	@echo "make fuzz      fuzzes every parser of foreign bytes (FUZZ_SECONDS each)"
	@echo "make clean     removes the build folders"
