# The front door. `make chat` and `make test` work straight after cloning; `make help` lists the rest.
# The build itself is meson's (meson.build); the program is build/qiusuo.

BUILD  := build
PREFIX ?= /usr/local
ARGS   ?=
NINJA  := $(shell command -v ninja 2>/dev/null || command -v ninja-build 2>/dev/null || echo ninja)

# Silent unless something goes wrong.
build = out=$$($(NINJA) -C $(BUILD) $(1) 2>&1) || { printf '%s\n' "$$out"; exit 1; }

.DEFAULT_GOAL := all
.PHONY: all chat test test-arm bench needles install uninstall fuzz clean help packages

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

# The whole table of docs/speed.md: an hour or two, 10 to 40 GB of disk in BENCH_DIR (bench/table.py says
# what narrows it). Leaves bench/table.csv, and bench/kernels.csv kernel by kernel.
bench: $(BUILD)/build.ninja
	@tools/packages.sh bench
	@$(call build,qiusuo bench/check_limits)
	@python3 bench/table.py $(BUILD)/qiusuo
	@$(BUILD)/qiusuo bench --kernels --csv >bench/kernels.csv
	@python3 bench/render.py
	@echo "Written: bench/table.csv, bench/kernels.csv, docs/speed.md"

# Trains the needle model of docs/long-context.md from nothing and asks it two thousand times; goes on
# where it was stopped.
needles: $(BUILD)/build.ninja
	@$(call build,qiusuo)
	@bench/needle/run.sh $(BUILD)/qiusuo $(BUILD)/needle

# base, sys, quant and kern alone, which need no library of the other architecture.
test-arm:
	@tools/packages.sh arm
	@[ -f build-arm/build.ninja ] || meson setup build-arm --cross-file tools/aarch64.ini -Dkern_only=true
	@$(NINJA) -C build-arm
	@meson test -C build-arm --no-rebuild --print-errorlogs -t 10

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
	rm -rf $(BUILD) build-arm build-asan build-tsan build-fuzz

help:
	@echo "make           builds the program and the examples (installs what that needs)"
	@echo "make chat      builds, then talks to the default model"
	@echo "make test      installs what the tests need, builds and runs them all"
	@echo "make test-arm  runs the tests of the ARM kernels under qemu-user (installs what that needs)"
	@echo "make bench     the table of docs/speed.md: this machine, and models made for it (BENCH_DIR)"
	@echo "make needles   trains the needle model of docs/long-context.md and asks it two thousand times"
	@echo "make install   program, default model, library, headers, man page (PREFIX, DESTDIR)"
	@echo "make fuzz      fuzzes every parser of foreign bytes (FUZZ_SECONDS each)"
	@echo "make clean     removes the build folders"
