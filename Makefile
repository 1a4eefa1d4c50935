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
CLI_PKGS := libcurl
DAEMON_PKGS := libmicrohttpd libsystemd
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) $(CLI_PKGS) $(DAEMON_PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -lpthread
CLI_LIBS   := $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null)
DAEMON_LIBS := $(shell pkg-config --libs $(DAEMON_PKGS) 2>/dev/null)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith \
        -Wformat=2 -Wswitch-enum -Wwrite-strings -Werror
BASE_CFLAGS := -std=c17 -D_GNU_SOURCE -O2 -g -ffp-contract=off -fno-math-errno -fno-trapping-math \
        -fstack-protector-strong $(WARN)
# The loops of lib/math and lib/quant are written for vectors; O3 lets the compiler use them.
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

ALL_CFLAGS = $(BASE_CFLAGS) $(CFLAGS_$(VARIANT)) -Iinclude -Itests -Idaemon -DMC_VERSION='"$(VERSION)"' $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LINK_$(VARIANT)) $(LDFLAGS)

LIB_SRC  := $(foreach f,$(FLOORS),$(wildcard lib/$(f)/*.c))
CLI_SRC  := $(wildcard daemon/cli/*.c)
DAEMON_SRC := $(filter-out daemon/main.c,$(wildcard daemon/*.c))
# What the daemon serves from memory: the status page and the description of its API.
EMBEDDED := daemon/web/index.html daemon/web/style.css $(wildcard daemon/web/*.js) docs/openapi.json
REF_SRC  := $(wildcard tests/reference/*.c)
TEST_SRC := $(wildcard tests/unit/test_*.c)
DOOR_SRC := $(wildcard tests/doors/*.c)
BENCH_SRC := $(wildcard tests/bench/*.c)
obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB    := $(BUILD)/libmoecal.a
MOECAL := $(BUILD)/moecal
MOECALD := $(BUILD)/moecald
DAEMON := $(BUILD)/libmoecald.a
TESTS  := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(TEST_SRC))
DOORS  := $(patsubst tests/doors/%.c,$(BUILD)/doors/%,$(DOOR_SRC))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(BENCH_SRC))

.PHONY: all
all: $(MOECAL) $(MOECALD) ## build the library and the programs

$(BUILD)/lib/math/%.o: lib/math/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) $(MATH_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/lib/quant/%.o: lib/quant/%.c
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
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(CLI_LIBS) $(PKG_LIBS) -o $@
# An object that holds the files: symbols daemon_web_index_html and daemon_web_index_html_end.
$(BUILD)/embedded.S: Makefile daemon/web
	@mkdir -p $(@D)
	@for f in $(EMBEDDED); do n=$$(echo $$f | tr './-' '___'); \
		printf '.section .rodata\n.global embedded_%s, embedded_%s_end\nembedded_%s: .incbin "%s"\nembedded_%s_end: .byte 0\n' \
			$$n $$n $$n $$f $$n; done >$@
	@echo '.section .note.GNU-stack,"",%progbits' >>$@
$(BUILD)/embedded.o: $(BUILD)/embedded.S $(EMBEDDED)
	$(Q)$(CC) -c $< -o $@
$(DAEMON): $(call obj,$(DAEMON_SRC)) $(BUILD)/embedded.o
	@rm -f $@
	$(Q)ar rcs $@ $^
$(MOECALD): $(BUILD)/daemon/main.o $(DAEMON) $(LIB)
	$(if $(Q),@echo "  LINK  $@")
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(DAEMON_LIBS) $(PKG_LIBS) -o $@
$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(call obj,$(REF_SRC)) $(DAEMON) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) -lcmocka $(DAEMON_LIBS) $(PKG_LIBS) -o $@
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
            libutf8proc-dev libyaml-dev libssl-dev libcmocka-dev libmicrohttpd-dev libcurl4-openssl-dev libsystemd-dev \
            ca-certificates curl jq groff-base procps python3 systemd
# What only check-full needs.
FULL_PACKAGES := clang libclang-rt-14-dev chromium fonts-dejavu-core prometheus python3-venv python3-pip

define install_missing
	@missing=; for p in $(1); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		as_root=; [ "$$(id -u)" -eq 0 ] || as_root=sudo; \
		$$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi
endef

.PHONY: deps deps-full
deps: ## install missing Debian packages (sudo when not root)
	$(call install_missing,$(PACKAGES))
deps-full: deps ## those of check-full too
	$(call install_missing,$(FULL_PACKAGES))

.PHONY: check check-installed build-tests
check: deps ## install what is missing, build, run all quick tests
	@$(MAKE) --no-print-directory -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory check-installed
HTTP_CASES := $(BUILD)/api/http_cases
build-tests: all $(TESTS) $(HTTP_CASES)
check-installed: build-tests
	@sh tests/check/floors.sh
	@sh tests/check/style.sh
	@bash tests/check/docs.sh $(MOECAL) $(MOECALD)
	@bash tests/check/unit_security.sh $(MOECALD)
	@$(MAKE) --no-print-directory unit
	@sh tests/check/cli.sh $(MOECAL)
	@$(MAKE) --no-print-directory api
	@bash tests/check/client.sh $(MOECALD) $(MOECAL)
	@python3 tests/check/service.py $(MOECALD) $(MOECAL)
	@bash tests/check/api_docs.sh $(MOECALD) $(MOECAL)
$(HTTP_CASES): $(call obj,$(wildcard tests/api/*.c)) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(ALL_LDFLAGS) $(PKG_LIBS) -o $@
.PHONY: api
CASES ?= $(wildcard tests/api/cases/*.http)
api: all $(HTTP_CASES) ## scenarios over HTTP against a real moecald; CASES=FILE... runs some
	@$(HTTP_CASES) $(MOECALD) $(MOECAL) $(CASES)

.PHONY: check-asan check-tsan check-clang check-fuzz check-crash check-load check-browser check-contract check-monitoring check-full
check-asan: ## unit tests and HTTP scenarios under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory VARIANT=asan -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory VARIANT=asan unit api
	@python3 tests/check/service.py build/asan/moecald build/asan/moecal
check-tsan: ## everything that runs on several threads, and the HTTP scenarios, under ThreadSanitizer
	@$(MAKE) --no-print-directory VARIANT=tsan -j$(JOBS) build-tests
	@set -e; for t in pool forward job ids metrics store http http_life router executor; do \
		$(MAKE) --no-print-directory VARIANT=tsan T=$$t unit; done
	@$(MAKE) --no-print-directory VARIANT=tsan api
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
# Parts of the daemon that fuzzers need: pure functions over what clients send.
FUZZED := $(call obj,daemon/screen.c daemon/http_negotiate.c daemon/ids.c)
$(BUILD)/fuzzers/%: $(BUILD)/tests/fuzz/%.o $(FUZZED) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $^ -fsanitize=fuzzer,address,undefined $(LDFLAGS) $(PKG_LIBS) -o $@
CRASH_ROUNDS ?= 50
check-crash: all ## moecal run, then the service, killed with -9 at random moments, CRASH_ROUNDS times
	@bash tests/crash/kill_run.sh $(MOECAL) $(CRASH_ROUNDS)
	@bash tests/crash/kill_daemon.sh $(MOECALD) $(MOECAL) $(CRASH_ROUNDS)
check-load: all ## all connections, a full queue, all watchers, a job on all cores: what the service answers, and how fast
	@python3 tests/load/load.py $(MOECALD) $(MOECAL)
check-browser: all ## the status page in headless Chromium
	@python3 tests/browser/page.py $(MOECALD) $(MOECAL)
check-contract: all ## generated requests (schemathesis) and answers held against docs/openapi.json
	@bash tests/contract/run.sh $(MOECALD) $(MOECAL)
check-monitoring: all ## alert rules, dashboard and a real scrape (promtool)
	@sh tests/check/monitoring.sh $(MOECALD) $(MOECAL)
check-full: deps-full check check-asan check-tsan check-clang check-crash check-load check-browser check-contract check-monitoring parity-models parity parity-tokenizers parity-perplexity parity-verify interop ## everything, needs ../shared

# --- doors: compare with reference results; FIXTURES=DIR points at other cases ----------------------

SHARED ?= ../shared
comma := ,
.PHONY: parity parity-models parity-tokenizers parity-perplexity parity-verify interop
# Cases that must pass; others are skipped by name while their scheme is not there yet.
PARITY_REQUIRED := W*,INT8,FP8,FP8.f32,FP8-routed*,FP8_DYNAMIC*,FP8_BLOCK,NVFP4*,MXFP*,fp8-*,nvfp4-*,mxfp4-*,mixed-*,w4a16-*,w4a8-*,w8a8-*,ignore-*,kv-fp8*,attention-fp8*
parity: deps $(BUILD)/doors/parity ## quantized tensors against llm-compressor's
	@$(BUILD)/doors/parity $(if $(FIXTURES),,--require '$(PARITY_REQUIRED)') --models $(or $(MODELS),$(SHARED)/models) $(or $(FIXTURES),$(SHARED)/fixtures/quantization/presets)
parity-models: deps $(BUILD)/doors/parity_models ## forward passes against transformers'
	@$(BUILD)/doors/parity_models $(if $(FIXTURES),,--only 'qwen3_moe*,mixtral*') $(or $(FIXTURES),$(SHARED)/fixtures/architectures)
parity-tokenizers: deps $(BUILD)/doors/parity_tokenizers ## token ids against the tokenizers library's
	@$(BUILD)/doors/parity_tokenizers $(if $(FIXTURES),,--require qwen2$(comma)qwen35$(comma)llama3$(comma)gpt_oss$(comma)mixtral$(comma)deepseek_v3) $(or $(FIXTURES),$(SHARED)/fixtures/tokenizers)
# The folder of FIXTURES holds good checkpoints and faults.json; SEEDS=N makes N more rounds of each fault elsewhere.
FAULTS = $(or $(FIXTURES),$(SHARED)/fixtures/quantization/verify)
SEEDS ?= 2
parity-verify: deps all ## moecal verify against planted faults: each must be found and named, good checkpoints must pass
	@python3 tests/doors/verify_faults.py $(MOECAL) $(FAULTS) $(or $(wildcard $(FAULTS)/make_faults.py),$(SHARED)/fixtures/quantization/verify/make_faults.py) \
		--models $(or $(MODELS),$(SHARED)/models) --seeds $(SEEDS)
parity-perplexity: deps all ## perplexity of a real model against transformers'
	@sh tests/doors/perplexity.sh $(MOECAL) $(SHARED)
interop: all $(BUILD)/doors/dense $(BUILD)/doors/logits ## every format read back by compressed-tensors and transformers (Python packages in build/venv)
	@sh tests/interop/run.sh $(MOECAL) $(BUILD)/doors $(SHARED)

# --- use -------------------------------------------------------------------------------------------

.PHONY: demo bench install uninstall format help clean
demo: deps ## the service end to end: a daemon, a small real model, a text, a W4A16 job, its proof
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@bash tests/demo.sh $(MOECALD) $(MOECAL)
bench: deps all $(BENCHES) ## speed of the all-experts pass as a share of the machine's sgemm peak
	@sh tests/bench/run.sh $(BUILD)
SHARE = $(DESTDIR)$(PREFIX)/share
UNITS ?= $(if $(filter /usr /usr/local,$(PREFIX)),/usr/lib/systemd/system,$(PREFIX)/lib/systemd/system)
SYSUSERS ?= $(if $(filter /usr /usr/local,$(PREFIX)),/usr/lib/sysusers.d,$(PREFIX)/lib/sysusers.d)
CONFIG ?= /etc/moecald
install: all ## programs, library, manual pages, units into $(DESTDIR)$(PREFIX); keeps a moecald.conf that is there
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/moecal $(SHARE)/man/man1 $(SHARE)/man/man5 \
		$(SHARE)/man/man8 $(SHARE)/moecal $(DESTDIR)$(UNITS) $(DESTDIR)$(SYSUSERS) $(DESTDIR)$(CONFIG)
	install -m 755 $(MOECAL) $(MOECALD) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 docs/man/moecal.1 $(SHARE)/man/man1/
	install -m 644 docs/man/moecald.conf.5 $(SHARE)/man/man5/
	install -m 644 docs/man/moecald.8 $(SHARE)/man/man8/
	install -m 644 include/moecal/*.h $(DESTDIR)$(PREFIX)/include/moecal/
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/libmoecal.a
	sed 's|@BINDIR@|$(PREFIX)/bin|g' systemd/moecald.service.in >$(DESTDIR)$(UNITS)/moecald.service
	chmod 644 $(DESTDIR)$(UNITS)/moecald.service
	install -m 644 systemd/moecald.socket $(DESTDIR)$(UNITS)/
	install -m 644 systemd/moecald.sysusers $(DESTDIR)$(SYSUSERS)/moecald.conf
	install -m 644 systemd/grafana-dashboard.json systemd/prometheus-rules.yml $(SHARE)/moecal/
	[ -e $(DESTDIR)$(CONFIG)/moecald.conf ] || install -m 644 systemd/moecald.conf $(DESTDIR)$(CONFIG)/moecald.conf
uninstall: ## remove what install put there, but for the settings
	rm -f $(DESTDIR)$(PREFIX)/bin/moecal $(DESTDIR)$(PREFIX)/bin/moecald $(DESTDIR)$(PREFIX)/lib/libmoecal.a \
		$(SHARE)/man/man1/moecal.1 $(SHARE)/man/man5/moecald.conf.5 $(SHARE)/man/man8/moecald.8 \
		$(DESTDIR)$(UNITS)/moecald.service $(DESTDIR)$(UNITS)/moecald.socket $(DESTDIR)$(SYSUSERS)/moecald.conf
	rm -rf $(DESTDIR)$(PREFIX)/include/moecal $(SHARE)/moecal
format: ## clang-format over all sources
	clang-format -i $$(git ls-files '*.c' '*.h')
clean: ## remove build/
	rm -rf build
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 20
