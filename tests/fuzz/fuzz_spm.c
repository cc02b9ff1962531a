/* fuzz_spm.c - any bytes as a SentencePiece model: refused with a message, or
 * pieces of valid UTF-8 inside the bytes. */
#include "fuzz/fuzz.h"

#include "format/format.h"

int fuzz_spm(const uint8_t *data, size_t n)
{
    format_spm spm;
    lori_error err = {0};
    lori_status st =
        format_spm_parse((const char *)data, n, "fuzz.model", &spm, &err);
    if (st != LORI_OK) {
        FUZZ_CHECK(err.message[0] && !spm.piece && spm.n == 0);
        return 0;
    }
    FUZZ_CHECK(spm.n > 0);
    for (size_t i = 0; i < spm.n; i++) {
        const format_spm_piece *p = &spm.piece[i];
        FUZZ_CHECK(p->type >= 1 && p->type <= 6);
        FUZZ_CHECK(base_utf8_valid(p->text, p->n) == p->n);
    }
    format_spm_free(&spm);
    return 0;
}

FUZZ_TARGET(fuzz_spm)
