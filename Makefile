# moecal - see `make help`. Variants never mix: build/release, build/asan, build/tsan, build/fuzz.
# CC, CFLAGS, CPPFLAGS, LDFLAGS of the caller are appended to.

VARIANT ?= release
BUILD   ?= build/$(VARIANT)
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0
V       ?= 0
JOBS    ?= $(shell nproc)
Q       := $(if $(filter 1,$(V)),,@)
# Floors from bottom to top; FLOORS="base math" builds a part (while a floor above is being moved).
FLOORS  ?= base math model forward calib quant run

PKGS := jansson openblas sqlite3 libpcre2-8 libutf8proc yaml-0.1 libcrypto
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS)) -lm -lpthread

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith \
        -Wformat=2 -Wswitch-enum -Wwrite-strings -Werror
BASE_CFLAGS := -std=c17 -D_GNU_SOURCE -O2 -g -ffp-contract=off -fno-math-errno -fno-trapping-math \
        -fstack-protector-strong $(WARN)
# The loops of lib/math are written for vectors; O3 lets the compiler use them.
MATH_CFLAGS := -O3
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-clash-protection -fcf-protection -fPIE
LINK_release := -pie -Wl,-z,relro,-z,now
CFLAGS_release := $(HARDEN)
CFLAGS_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DMC_FAULTS -DMC_NO_CLONES
CFLAGS_tsan := -fsanitize=thread -fno-omit-frame-pointer -DMC_NO_CLONES
CFLAGS_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -DMC_NO_CLONES
LINK_asan := -fsanitize=address,undefined
LINK_tsan := -fsanitize=thread
LINK_fuzz := -fsanitize=address,undefined

ALL_CFLAGS = $(BASE_CFLAGS) $(CFLAGS_$(VARIANT)) -Iinclude -Itests -DMC_VERSION='"$(VERSION)"' $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LINK_$(VARIANT)) $(LDFLAGS)

LIB_SRC  := $(foreach f,$(FLOORS),$(wildcard lib/$(f)/*.c))
CLI_SRC  := $(wildcard daemon/cli/*.c)
REF_SRC  := $(wildcard tests/reference/*.c)
TEST_SRC := $(wildcard tests/unit/test_*.c)
DOOR_SRC := $(wildcard tests/doors/*.c)
BENCH_SRC := $(wildcard tests/bench/*.c)
obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB    := $(BUILD)/libmoecal.a
MOECAL := $(BUILD)/moecal
TESTS  := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(TEST_SRC))
DOORS  := $(patsubst tests/doors/%.c,$(BUILD)/doors/%,$(DOOR_SRC))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(BENCH_SRC))

.PHONY: all
all: $(MOECAL) ## build the library and the programs

$(BUILD)/lib/math/%.o: lib/math/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) $(MATH_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@
$(LIB): $(call obj,$(LIB_SRC))
	@rm -f $@
	$(Q)ar rcs $@ $^
$(MOECAL): $(call obj,$(CLI_SRC)) $(LIB)
	$(if $(Q),@echo "  LINK  $@")
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(PKG_LIBS) -o $@
$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(call obj,$(REF_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) -lcmocka $(PKG_LIBS) -o $@
$(BUILD)/doors/%: $(BUILD)/tests/doors/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(PKG_LIBS) -o $@
$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(PKG_LIBS) -o $@
.SECONDARY:

.PHONY: unit
CHOSEN_TESTS = $(if $(T),$(BUILD)/unit/test_$(T),$(TESTS))
unit: $(CHOSEN_TESTS) ## build and run the unit tests; T=name runs one
	@set -e; for t in $(CHOSEN_TESTS); do OPENBLAS_NUM_THREADS=1 $$t; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# --- checks: what `make check` promises needs nothing outside the repository ---------------------

PACKAGES := build-essential pkg-config libjansson-dev libopenblas-pthread-dev libsqlite3-dev libpcre2-dev \
            libutf8proc-dev libyaml-dev libssl-dev libcmocka-dev

.PHONY: deps
deps: ## install missing Debian packages (sudo when not root)
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		as_root=; [ "$$(id -u)" -eq 0 ] || as_root=sudo; \
		$$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -qq --no-install-recommends $$missing; \
	fi

.PHONY: check check-installed build-tests
check: deps ## install what is missing, build, run all quick tests
	@$(MAKE) --no-print-directory -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory check-installed
build-tests: all $(TESTS)
check-installed: build-tests
	@sh tests/check/floors.sh
	@sh tests/check/style.sh
	@sh tests/check/docs.sh $(MOECAL)
	@$(MAKE) --no-print-directory unit
	@sh tests/check/cli.sh $(MOECAL)

.PHONY: check-asan check-tsan check-clang check-fuzz check-crash check-full
check-asan: ## unit tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory VARIANT=asan -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory VARIANT=asan unit
check-tsan: ## tests of everything that runs on the pool under ThreadSanitizer
	@$(MAKE) --no-print-directory VARIANT=tsan T=pool unit
	@$(MAKE) --no-print-directory VARIANT=tsan T=forward unit
	@$(MAKE) --no-print-directory VARIANT=tsan T=job unit
check-clang: ## everything compiles with clang without a warning
	@$(MAKE) --no-print-directory CC=clang BUILD=build/clang all
	@$(MAKE) --no-print-directory CC=clang BUILD=build/clang T=dtype unit
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_SECONDS ?= 30
check-fuzz: ## each fuzzer for FUZZ_SECONDS (needs clang and libclang-rt)
	@set -e; for f in $(basename $(notdir $(FUZZ_SRC))); do \
		$(MAKE) --no-print-directory CC=clang VARIANT=fuzz build/fuzz/fuzzers/$$f; \
		mkdir -p build/fuzz/corpus/$$f; \
		build/fuzz/fuzzers/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 build/fuzz/corpus/$$f \
			$$([ -d tests/fuzz/corpus/$$f ] && echo tests/fuzz/corpus/$$f); done
$(BUILD)/fuzzers/%: $(BUILD)/tests/fuzz/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ -fsanitize=fuzzer,address,undefined $(LDFLAGS) $(PKG_LIBS) -o $@
CRASH_ROUNDS ?= 20
check-crash: all ## moecal run killed with -9 at random moments, CRASH_ROUNDS times
	@bash tests/crash/kill_run.sh $(MOECAL) $(CRASH_ROUNDS)
check-full: check check-asan check-tsan check-clang check-crash parity-models parity parity-tokenizers parity-perplexity ## everything, needs ../shared

# --- doors: compare with reference results; FIXTURES=DIR points at other cases ----------------------

SHARED ?= ../shared
comma := ,
.PHONY: parity parity-models parity-tokenizers parity-perplexity interop
# Cases that must pass; others are skipped by name while their scheme is not there yet.
PARITY_REQUIRED := W[0-9]A16*,w4a16-g*,w4a16-channel*,W8A8*,W4A8*,FP8,FP8.f32,FP8-routed*,FP8_DYNAMIC*,FP8_BLOCK*,w8a8-static*,w4a8-fp8-static*
parity: deps $(BUILD)/doors/parity ## quantized tensors against llm-compressor's
	@$(BUILD)/doors/parity $(if $(FIXTURES),,--require '$(PARITY_REQUIRED)') --models $(or $(MODELS),$(SHARED)/models) $(or $(FIXTURES),$(SHARED)/fixtures/quantization/presets)
parity-models: deps $(BUILD)/doors/parity_models ## forward passes against transformers'
	@$(BUILD)/doors/parity_models $(if $(FIXTURES),,--only 'qwen3_moe*,mixtral*') $(or $(FIXTURES),$(SHARED)/fixtures/architectures)
parity-tokenizers: deps $(BUILD)/doors/parity_tokenizers ## token ids against the tokenizers library's
	@$(BUILD)/doors/parity_tokenizers $(if $(FIXTURES),,--require qwen2$(comma)qwen35$(comma)llama3$(comma)gpt_oss$(comma)mixtral$(comma)deepseek_v3) $(or $(FIXTURES),$(SHARED)/fixtures/tokenizers)
parity-perplexity: deps all ## perplexity of a real model against transformers'
	@sh tests/doors/perplexity.sh $(MOECAL) $(SHARED)
interop: all $(BUILD)/doors/logits ## checkpoints that we wrote, loaded by transformers (Python packages in build/venv)
	@sh tests/interop/run.sh $(MOECAL) $(BUILD)/doors/logits

# --- use -------------------------------------------------------------------------------------------

.PHONY: demo bench install uninstall format help clean
demo: deps ## calibrate a small real model to W4A16 and show what comes out
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@sh tests/demo.sh $(MOECAL)
bench: deps all $(BENCHES) ## speed of the all-experts pass as a share of the machine's sgemm peak
	@sh tests/bench/run.sh $(BUILD)
install: all ## install into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/include/moecal $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(MOECAL) $(DESTDIR)$(PREFIX)/bin/moecal
	install -m 644 docs/man/moecal.1 $(DESTDIR)$(PREFIX)/share/man/man1/moecal.1
	install -m 644 include/moecal/*.h $(DESTDIR)$(PREFIX)/include/moecal/
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/libmoecal.a
uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/moecal $(DESTDIR)$(PREFIX)/share/man/man1/moecal.1 $(DESTDIR)$(PREFIX)/lib/libmoecal.a
	rm -rf $(DESTDIR)$(PREFIX)/include/moecal
format: ## clang-format over all sources
	clang-format -i $$(git ls-files '*.c' '*.h')
clean: ## remove build/
	rm -rf build
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 20
