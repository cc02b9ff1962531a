/* fuzz.h - one entry point a parser: any bytes at all must give an error or a
 * valid result. libFuzzer calls LLVMFuzzerTestOneInput (make fuzz); the tests
 * replay tests/fuzz/corpus/NAME/ through the same functions. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int fuzz_json(const uint8_t *data, size_t n);
int fuzz_yaml(const uint8_t *data, size_t n);
int fuzz_safetensors(const uint8_t *data, size_t n);
int fuzz_scan(const uint8_t *data, size_t n);
int fuzz_spm(const uint8_t *data, size_t n);
int fuzz_gguf(const uint8_t *data, size_t n);
int fuzz_tokenizer(const uint8_t *data, size_t n);
int fuzz_expression(const uint8_t *data, size_t n);
int fuzz_hub(const uint8_t *data, size_t n);
int fuzz_jinja(const uint8_t *data, size_t n);

/* A file is compiled as a libFuzzer program with -DFUZZ_MAIN. */
#ifdef FUZZ_MAIN
#define FUZZ_TARGET(name)                                                      \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);                 \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)                  \
    {                                                                          \
        return name(data, n);                                                  \
    }
#else
#define FUZZ_TARGET(name)
#endif

/* What must hold in any build; abort() is what libFuzzer and Criterion see. */
#define FUZZ_CHECK(condition)                                                  \
    do {                                                                       \
        if (!(condition))                                                      \
            __builtin_trap();                                                  \
    } while (0)

#endif
