# lori - one C library and one program. `make help` lists the targets.
#
# CONFIG=release|debug|asan|tsan and CC=gcc|clang choose a build; each has its
# own folder, so they never mix. Sources are found by room (src/ROOM/).

CONFIG ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build/$(notdir $(CC))-$(CONFIG)
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

# Tests may run several at a time: threads that wait should not spin.
export GOMP_SPINCOUNT ?= 1000
# No part of the tests takes minutes; one that hangs must end.
LIMIT := timeout -k 10 1500

ROOMS := base format hub text backend adapter model infer eval train job api
# What a room's tests link: itself and everything below it.
CLOSURE_base := base
CLOSURE_format := format base
CLOSURE_hub := hub format base
CLOSURE_text := text format base
CLOSURE_backend := backend base
CLOSURE_adapter := adapter backend format base
CLOSURE_model := model adapter backend format base
CLOSURE_infer := infer model adapter backend text format base
CLOSURE_eval := eval infer model adapter backend text format base
CLOSURE_train := train model adapter backend text format base
CLOSURE_job := job train eval infer model adapter backend text hub format base
CLOSURE_api := api $(CLOSURE_job)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
        -Wmissing-prototypes -Wcast-qual -Wwrite-strings -Wvla -Wundef \
        -Wformat=2 -Wdouble-promotion -Wimplicit-fallthrough
WERROR ?= 0
ifeq ($(WERROR),1)
WARN += -Werror
endif

OPT_release := -O2 -g1
OPT_debug := -O0 -g3
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT := $(OPT_$(CONFIG))

# Portable baseline; kernels choose their instruction set at run time.
ARCH := -march=x86-64-v2
CFLAGS_ALL := -std=c17 -D_GNU_SOURCE $(WARN) $(OPT) $(ARCH) -fPIC -fopenmp \
              -fvisibility=hidden -Iinclude -Isrc -MMD -MP $(CFLAGS)
KERNEL := -O3 -ffp-contract=fast
LIBS := -ljansson -lyaml -lpcre2-8 -lutf8proc -lm
# Optional: libcurl with OpenSSL, for `lori pull`.
HAVE_CURL := $(shell printf '\043include <%s>\n' curl/curl.h openssl/evp.h | \
                     $(CC) -E - >/dev/null 2>&1 && echo 1)
LIBS += $(if $(HAVE_CURL),-lcurl -lcrypto)
# Optional: libedit, for line editing in `lori chat`. Only the program has it.
HAVE_EDIT := $(shell printf '\043include <%s>\n' histedit.h | \
                     $(CC) -E - >/dev/null 2>&1 && echo 1)
LDFLAGS_ALL := $(OPT) -fopenmp $(LDFLAGS)
# Optional: CUDA's compiler and cuBLASLt's header, for the GPU backend. NVCC=
# builds without. The runtime is linked in and cuBLASLt loaded when it is used,
# so the program starts on any machine.
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME := $(if $(NVCC),$(patsubst %/bin/,%,$(dir $(realpath $(shell command -v $(NVCC))))))
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl -lpthread \
             -Xlinker -rpath -Xlinker $(CUDA_HOME)/lib64
HAVE_CUDA := $(if $(CUDA_HOME),$(shell printf '\043include <cublasLt.h>\nint main(void){return 0;}\n' | \
                     $(CC) -isystem $(CUDA_HOME)/include -x c - -o /dev/null $(CUDA_LIBS) >/dev/null 2>&1 && echo 1))
LIBS += $(if $(HAVE_CUDA),$(CUDA_LIBS))
NVCC_FLAGS := -std=c++17 -O3 -Iinclude -Isrc -gencode arch=compute_80,code=sm_80 \
              -gencode 'arch=compute_90,code=[sm_90,compute_90]' -Xcompiler -Wall,-Wextra,-fPIC \
              -Xcompiler -fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics $(NVCCFLAGS)

# ---- objects, by room -------------------------------------------------

ISA := base avx2 avx512 avx512bf16
ISA_base :=
ISA_avx2 := -mavx2 -mfma -mf16c -mbmi2 -mprfchw
ISA_avx512 := $(ISA_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq \
              -mprefer-vector-width=512
ISA_avx512bf16 := $(ISA_avx512) -mavx512bf16
# Tiles: with the unit, by vectors, and emulated for tests. A folder of kernels
# of its own.
TILE := amx vectors emulated
TILE_amx := $(ISA_avx512bf16) -mamx-tile -mamx-bf16 -DCPU_ISA_avx512bf16
TILE_vectors := $(ISA_avx512bf16) -DCPU_ISA_avx512bf16 -DCPU_TILE_VECTORS
TILE_emulated := $(ISA_avx512) -DCPU_ISA_avx512 -DCPU_TILE_EMULATED

obj = $(patsubst src/%.c,$(BUILD)/obj/%.o,$(1))
REF_TWICE := src/backend/ref/ref_ops.c src/backend/ref/ref_attn.c
# Downloads, or their absence.
WITH_CURL := src/hub/hub_http.c src/hub/hub_blob.c src/hub/hub_pull.c
# The GPU's backend, or its absence.
WITH_CUDA := $(filter-out %_none.c,$(wildcard src/backend/cuda/*.c))
NOT_BUILT := $(if $(HAVE_CURL),src/hub/hub_pull_none.c,$(WITH_CURL)) \
             $(if $(HAVE_CUDA),src/backend/cuda/cuda_none.c,$(WITH_CUDA)) \
             src/cli/chat_edit$(if $(HAVE_EDIT),_none).c
plain = $(filter-out $(REF_TWICE) $(NOT_BUILT) $(wildcard src/backend/cpu/isa/*.c src/backend/cpu/tile/*.c),$(1))
sources = $(wildcard src/$(1)/*.c src/$(1)/*/*.c src/$(1)/*/*/*.c)
OBJ_backend_extra := \
    $(foreach r,32 64,$(REF_TWICE:src/%.c=$(BUILD)/obj/%_f$(r).o)) \
    $(foreach i,$(ISA),$(patsubst src/%.c,$(BUILD)/obj/%_$(i).o,$(wildcard src/backend/cpu/isa/*.c))) \
    $(foreach i,$(TILE),$(patsubst src/%.c,$(BUILD)/obj/%_$(i).o,$(wildcard src/backend/cpu/tile/*.c))) \
    $(if $(HAVE_CUDA),$(patsubst src/%.cu,$(BUILD)/obj/%.o,$(wildcard src/backend/cuda/*.cu)))
$(foreach r,$(ROOMS) cli,$(eval OBJ_$(r) := $(call obj,$(call plain,$(call sources,$(r)))) $(OBJ_$(r)_extra)))
$(foreach r,$(ROOMS),$(eval LIB_$(r) := $(if $(OBJ_$(r)),$(BUILD)/room/lib$(r).a)))

.PHONY: all help deps check layers test-cli demo demo-smollm2 oracle oracle-eval asan tsan bench fmt tidy \
        install clean accept
all: $(BUILD)/lori $(BUILD)/liblori.a $(BUILD)/liblori.so ## build the program and the library

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what the build needs (apt), or print the command that does
	$(Q)CC=$(CC) tools/deps.sh $(if $(findstring clang,$(CC)),clang)

$(BUILD)/obj/backend/ref/%_f32.o: src/backend/ref/%.c
	@mkdir -p $(@D)
	@echo "  CC    $< (float)"
	$(Q)$(CC) $(CFLAGS_ALL) -DREF_REAL=32 -c $< -o $@
$(BUILD)/obj/backend/ref/%_f64.o: src/backend/ref/%.c
	@mkdir -p $(@D)
	@echo "  CC    $< (double)"
	$(Q)$(CC) $(CFLAGS_ALL) -DREF_REAL=64 -c $< -o $@

define isa_rule
$(BUILD)/obj/backend/cpu/isa/%_$(1).o: src/backend/cpu/isa/%.c
	@mkdir -p $$(@D)
	@echo "  CC    $$< ($(1))"
	$(Q)$(CC) $(CFLAGS_ALL) $(KERNEL) $(ISA_$(1)) -DCPU_ISA=$(1) -DCPU_ISA_$(1) -c $$< -o $$@
endef
$(foreach i,$(ISA),$(eval $(call isa_rule,$(i))))

define tile_rule
$(BUILD)/obj/backend/cpu/tile/%_$(1).o: src/backend/cpu/tile/%.c
	@mkdir -p $$(@D)
	@echo "  CC    $$< ($(1))"
	$(Q)$(CC) $(CFLAGS_ALL) $(KERNEL) $(TILE_$(1)) -DCPU_ISA=$(1) -c $$< -o $$@
endef
$(foreach i,$(TILE),$(eval $(call tile_rule,$(i))))

$(BUILD)/obj/backend/cuda/%.o: CFLAGS_ALL += -isystem $(CUDA_HOME)/include
$(BUILD)/obj/%.o: src/%.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) $(if $(filter 1,$(WERROR)),-Werror all-warnings) -MMD -MP -c $< -o $@
$(BUILD)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@

define room_rule
$(BUILD)/room/lib$(1).a: $$(OBJ_$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	$(Q)ar rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

ALL_OBJ := $(foreach r,$(ROOMS),$(OBJ_$(r)))
$(BUILD)/liblori.a: $(ALL_OBJ)
	@echo "  AR    $@"
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/liblori.so: $(ALL_OBJ)
	@echo "  LD    $@"
	$(Q)$(CC) -shared -Wl,-soname,liblori.so.0 -o $@ $^ $(LDFLAGS_ALL) $(LIBS)
$(BUILD)/lori: $(OBJ_cli) $(BUILD)/liblori.a
	@echo "  LD    $@"
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS) $(if $(HAVE_EDIT),-ledit)

# ---- tests: one Criterion binary a room ---------------------------------

define test_rule
TEST_SRC_$(1) := $$(wildcard tests/$(1)/*.c)
$(BUILD)/test_$(1): $$(patsubst tests/%.c,$(BUILD)/test/%.o,$$(TEST_SRC_$(1))) \
    $$(foreach r,$$(CLOSURE_$(1)),$$(LIB_$$(r)))
	@echo "  LD    $$@"
	$(Q)$(CC) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group \
	    -lcriterion $(LDFLAGS_ALL) $(LIBS)
endef
$(foreach r,$(ROOMS),$(eval $(call test_rule,$(r))))

$(BUILD)/test/%.o: tests/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS_ALL) -Itests -Wno-missing-prototypes -Wno-cast-qual -Wno-pedantic \
	    -Wno-strict-prototypes -Wno-double-promotion -Wno-conversion -Wno-sign-conversion \
	    -Wno-shadow -c $< -o $@

TEST_ROOMS := $(foreach r,$(ROOMS),$(if $(wildcard tests/$(r)/*.c),$(r)))
# make test-ROOM builds and runs one room's tests. Tests run side by side: idle
# OpenMP threads must sleep, not spin. A test's leaks do not fail it in Criterion:
# they are found in the sanitizer's log.
define run_rule
.PHONY: test-$(1)
test-$(1): $(BUILD)/test_$(1)
	@echo "== tests of $(1)"
	$(Q)rm -f $(BUILD)/test_$(1).found.*
	$(Q)status=0; OMP_WAIT_POLICY=passive ASAN_OPTIONS=log_path=$(abspath $(BUILD))/test_$(1).found \
	    $(LIMIT) $(BUILD)/test_$(1) --short-filename $(TEST_ARGS) || status=$$$$?; \
	    if ls $(BUILD)/test_$(1).found.* >/dev/null 2>&1; then cat $(BUILD)/test_$(1).found.*; exit 1; fi; exit $$$$status
endef
$(foreach r,$(ROOMS),$(eval $(call run_rule,$(r))))

# The program's own tests: a tiny random model, every command, bad inputs.
$(BUILD)/tiny_gguf: tests/cli/tiny_gguf.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE -O1 -o $@ $< -lm
$(BUILD)/embed: tests/cli/embed.c $(BUILD)/liblori.so
	$(Q)$(CC) -std=c17 $(OPT) -Iinclude -o $@ $< -L$(BUILD) -llori \
	    -Wl,-rpath,'$$ORIGIN/runtime'
	@mkdir -p $(BUILD)/runtime && ln -sf ../liblori.so $(BUILD)/runtime/liblori.so.0
$(BUILD)/hub_server: tests/cli/hub_server.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE -O1 -pthread -o $@ $< -lcrypto
test-cli: $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/embed test-pull test-chat test-tasks test-tokens test-tiny
	@echo "== tests of the program"
	$(Q)$(LIMIT) tests/cli/run_cli.sh $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/embed
	@echo "== tests of generate"
	$(Q)$(LIMIT) tests/cli/run_generate.sh $(BUILD)/lori $(BUILD)/tiny_gguf
$(BUILD)/pty: tests/cli/pty.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE -O1 -o $@ $< -lutil
.PHONY: test-chat
test-chat: $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/pty
	@echo "== tests of chat"
	$(Q)$(LIMIT) tests/cli/run_chat.sh $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/pty
.PHONY: test-tasks
test-tasks: $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/pty
	@echo "== tests of eval and run"
	$(Q)$(LIMIT) tests/cli/eval_cli.sh $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/pty
.PHONY: test-tokens
test-tokens: $(BUILD)/lori $(BUILD)/tiny_gguf
	@echo "== tests of tokenize and detokenize"
	$(Q)$(LIMIT) tests/cli/run_tokens.sh $(BUILD)/lori $(BUILD)/tiny_gguf tests/fuzz/corpus/spm
.PHONY: test-tiny
test-tiny: $(BUILD)/lori
	@echo "== tests of models/tiny"
	$(Q)$(LIMIT) tests/cli/run_tiny.sh $(BUILD)/lori
.PHONY: test-pull
test-pull: $(BUILD)/lori $(BUILD)/tiny_gguf $(if $(HAVE_CURL),$(BUILD)/hub_server)
	@echo "== tests of pull and of the hub's cache"
	$(Q)$(if $(HAVE_CURL),$(LIMIT) tests/cli/run_pull.sh $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/hub_server,\
	    echo "SKIP: this build has no libcurl")

# The generators of the tasks' rows: same seed same bytes, no leaks.
.PHONY: test-data
test-data:
	@echo "== tests of the data"
	$(Q)$(LIMIT) tests/data/run_data.sh

layers: ## who includes whom, file sizes, unique names
	$(Q)tools/check_layers.sh

# Dependencies are looked for first, so `make check` works on a fresh machine.
check: deps ## build, and run every test that needs no network, Python or GPU
	$(Q)$(MAKE) --no-print-directory WERROR=1 layers all \
	    $(foreach r,$(TEST_ROOMS),$(BUILD)/test_$(r)) $(BUILD)/tiny_gguf
	$(Q)for t in $(TEST_ROOMS) data cli; do \
	    $(MAKE) --no-print-directory WERROR=1 test-$$t || exit 1; done
	@echo "check: all passed ($(notdir $(CC)), $(CONFIG))"

.PHONY: check-rungs
check-rungs: $(BUILD)/lori $(BUILD)/tiny_gguf $(BUILD)/embed \
    $(foreach r,$(filter model infer train job,$(TEST_ROOMS)),$(BUILD)/test_$(r)) ## the computing tests on every instruction set of this processor
	$(Q)tools/check_rungs.sh $(BUILD)

asan: ## make check under AddressSanitizer and UBSan
	$(Q)$(MAKE) --no-print-directory CONFIG=asan check
# The program, because Criterion's sandbox does not run under ThreadSanitizer.
# Archer tells it about OpenMP's barriers.
tsan: ## the program's tests under ThreadSanitizer (clang with Archer)
	$(Q)tools/deps.sh clang
	$(Q)TSAN_OPTIONS=ignore_noninstrumented_modules=1 \
	    OMP_TOOL_LIBRARIES=$$(ls /usr/lib/llvm-*/lib/libarcher.so | tail -n 1) \
	    $(MAKE) --no-print-directory CC=clang CONFIG=tsan test-cli

demo: deps ## the paper in miniature, offline: four tasks, LoRA and LoRI, merges, a page
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tools/demo/demo.sh $(BUILD)/lori demo tiny

demo-smollm2: deps ## the same on SmolLM2-135M, which it downloads; takes long on a CPU
	$(Q)tools/deps.sh demo
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tools/demo/demo.sh $(BUILD)/lori demo-smollm2 smollm2

# ---- for developers: comparison with PyPI libraries ---------------------

PROBE_LIBS = $(foreach r,infer $(CLOSURE_train),$(LIB_$(r)))
$(BUILD)/probe_%: tests/oracle/probe_%.c $(foreach r,infer $(CLOSURE_train),$(LIB_$(r)))
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $< -Wl,--start-group $(PROBE_LIBS) -Wl,--end-group \
	    $(LDFLAGS_ALL) $(LIBS)
oracle: ## live comparison with torch, transformers, peft, tokenizers
	$(Q)tools/deps.sh oracle demo
	$(Q)$(MAKE) --no-print-directory all $(BUILD)/probe_model $(BUILD)/probe_text $(BUILD)/probe_tokens \
	    $(BUILD)/probe_chat $(BUILD)/probe_adapter $(BUILD)/probe_infer $(BUILD)/tiny_gguf $(BUILD)/hub_server
	$(Q)tests/oracle/run.sh $(BUILD)

oracle-eval: ## lori eval against lm-evaluation-harness on SmolLM2 (20 minutes on 2 cores)
	$(Q)tools/deps.sh oracle demo
	$(Q)$(MAKE) --no-print-directory all $(BUILD)/probe_model
	$(Q)tests/oracle/run_lm_eval.sh $(BUILD)

# Speed of the CPU backend's operations: a table, not a test.
bench: bench-ops ## speed: operations, then training beside transformers + peft
	$(Q)tools/deps.sh oracle demo
	$(Q)LORI_BUILD=$(BUILD) bench/peers/run_train.sh

.PHONY: bench-infer
bench-infer: ## prefill, decode and start-up beside llama.cpp (builds it: minutes, once)
	$(Q)tools/deps.sh oracle demo llama
	$(Q)$(MAKE) --no-print-directory all
	$(Q)LORI_BUILD=$(BUILD) bench/peers/run_infer.sh

.PHONY: bench-text
bench-text: ## speed of the tokenizer beside `tokenizers`
	$(Q)tools/deps.sh oracle demo
	$(Q)LORI_BUILD=$(BUILD) tools/accept/text_speed.sh

.PHONY: bench-ops
$(BUILD)/bench_%: bench/bench_%.c bench/measure.h $(LIB_backend) $(LIB_base)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $< $(LIB_backend) $(LIB_base) $(LDFLAGS_ALL) $(LIBS)
$(BUILD)/bench_linear: LIBS += -ldnnl
bench-ops: ## time products and the other operations (BENCH_ARGS: --json FILE --quick)
	$(Q)tools/deps.sh bench
	$(Q)$(MAKE) --no-print-directory $(BUILD)/bench_linear $(BUILD)/bench_ops $(BUILD)/bench_attn
	$(Q)$(BUILD)/bench_linear $(BENCH_ARGS)
	$(Q)$(BUILD)/bench_ops
	$(Q)$(BUILD)/bench_attn

.PHONY: bench-cuda
bench-cuda: $(BUILD)/bench_cuda ## time the GPU's products, attention and copies (BENCH_ARGS: f32)
	$(Q)$(BUILD)/bench_cuda $(BENCH_ARGS)

# A step at two real shapes with random weights; the folders stay in BUILD.
STEP_ROOMS := $(foreach r,$(CLOSURE_train),$(LIB_$(r)))
$(BUILD)/random_model $(BUILD)/bench_step: $(BUILD)/%: bench/%.c $(STEP_ROOMS)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $< -Wl,--start-group $(STEP_ROOMS) -Wl,--end-group \
	    $(LDFLAGS_ALL) $(LIBS)
$(BUILD)/bench/%/config.json: $(BUILD)/random_model
	$(Q)$(BUILD)/random_model $* $(@D)
.PHONY: bench-step
bench-step: $(BUILD)/bench_step $(BUILD)/bench/smollm2/config.json $(BUILD)/bench/llama-1b/config.json ## time training steps and their matrix products alone (STEP_ARGS: batch steps mean threads)
	$(Q)$(BUILD)/bench_step $(BUILD)/bench/smollm2 $(STEP_ARGS)
	$(Q)$(BUILD)/bench_step $(BUILD)/bench/llama-1b $(STEP_ARGS)

DECODE_ROOMS := $(foreach r,$(CLOSURE_infer),$(LIB_$(r)))
$(BUILD)/bench_decode: bench/bench_decode.c bench/measure.h $(DECODE_ROOMS)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $< -Wl,--start-group $(DECODE_ROOMS) -Wl,--end-group \
	    $(LDFLAGS_ALL) $(LIBS)
.PHONY: bench-decode
bench-decode: $(BUILD)/bench_decode $(BUILD)/bench/smollm2/config.json ## time decoding steps beside reading the weights (DECODE_MODEL: folder)
	$(Q)$(BUILD)/bench_decode $(or $(DECODE_MODEL),$(BUILD)/bench/smollm2)

# ---- fuzzing the parsers (clang's libFuzzer) ----------------------------
# New inputs go to BUILD; one that breaks something belongs into
# tests/fuzz/corpus/NAME/, which the tests of `format`, `hub` and `text` replay.

FUZZ_SECONDS ?= 20
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_EVAL := expression extract metrics task_read tasks template
FUZZ_FLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
              -fno-sanitize-recover=undefined -DJINJA_MAX_STEPS=200000
.PHONY: fuzz
$(BUILD)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h \
    $(wildcard src/base/*.[ch] src/format/*.[ch] src/text/*.[ch] src/hub/hub_[nl]*.c) \
    $(FUZZ_EVAL:%=src/eval/%.c)
	@mkdir -p $(@D)
	@echo "  FUZZ  $@"
	$(Q)clang -std=c17 -D_GNU_SOURCE $(ARCH) $(FUZZ_FLAGS) -DFUZZ_MAIN -Iinclude -Isrc -Itests \
	    -o $@ $(filter %.c,$^) -ljansson -lpcre2-8 -lyaml -lm
fuzz: $(FUZZ:%=$(BUILD)/fuzz/fuzz_%) ## search for inputs that break a parser (FUZZ_SECONDS=20 each)
	$(Q)for f in $(FUZZ); do \
	    echo "== fuzzing $$f for $(FUZZ_SECONDS) s"; \
	    mkdir -p $(BUILD)/fuzz/$$f; \
	    $(BUILD)/fuzz/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=20 \
	        -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=$(BUILD)/fuzz/$$f- $(BUILD)/fuzz/$$f tests/fuzz/corpus/$$f || exit 1; \
	done

FMT := $(shell find src include tests bench \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) ! -name '*_tables.c' 2>/dev/null)
fmt: ## clang-format in place
	clang-format -i $(FMT)
tidy: ## clang-tidy over the library and the program
	clang-tidy --quiet $(filter-out $(if $(HAVE_CUDA),,$(WITH_CUDA)),$(shell \
	    find src -name '*.c' ! -path '*/isa/*' ! -path '*/tile/*' ! -name 'ref_[oa]*.c')) -- -std=c17 -D_GNU_SOURCE \
	    -Iinclude -Isrc -fopenmp $(if $(HAVE_CUDA),-isystem $(CUDA_HOME)/include)

PREFIX ?= /usr/local
install: all ## install program, library and header under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install $(BUILD)/lori $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/liblori.a $(DESTDIR)$(PREFIX)/lib/
	install $(BUILD)/liblori.so $(DESTDIR)$(PREFIX)/lib/liblori.so.0
	ln -sf liblori.so.0 $(DESTDIR)$(PREFIX)/lib/liblori.so
	install -m 644 include/lori.h include/lori_core.h $(DESTDIR)$(PREFIX)/include/

clean: ## remove everything that was built
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
