/* infer_common.c - what generation and scoring share: checks of token ids,
 * rows of logits in either precision. */
#include "infer/infer_i.h"

const float *infer_row(const void *logits, base_dtype acc, int64_t row,
                       int64_t vocab, float *buffer)
{
    if (acc == BASE_F32)
        return (const float *)logits + row * vocab;
    const double *x = (const double *)logits + row * vocab;
    for (int64_t i = 0; i < vocab; i++)
        buffer[i] = (float)x[i];
    return buffer;
}

lori_status infer_check_ids(const int32_t *ids, int64_t n, int64_t vocab,
                            const char *what, int64_t index, lori_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return base_fail(
                err, LORI_INVALID,
                "%s %lld: token %lld is id %d, outside the model's "
                "vocabulary of %lld",
                what, (long long)index, (long long)i, (int)ids[i],
                (long long)vocab);
    return LORI_OK;
}
