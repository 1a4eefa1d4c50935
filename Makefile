# moecal - see `make help`. Variants never mix: build/release, build/asan, build/tsan, build/fuzz.
# CC, CFLAGS, CPPFLAGS, LDFLAGS of the caller are appended to.

VARIANT ?= release
BUILD   ?= build/$(VARIANT)
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0
V       ?= 0
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
unit: $(TESTS) ## build and run the unit tests; T=name runs one
	@set -e; for t in $(if $(T),$(BUILD)/unit/test_$(T),$(TESTS)); do OPENBLAS_NUM_THREADS=1 $$t; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
