/* rope.c - rotary frequencies as transformers 5 computes them, and the tables
 * of cos and sin. May include base, backend, model.
 * Source: transformers modeling_rope_utils.py; spec/hf.md 2. */
#include <math.h>
#include <stdlib.h>

#include "model/model_i.h"

static const float two_pi = 6.28318530717958647692F;

/* Every step is a float operation of its own, in torch's order: torch writes
 * `number / tensor` as the reciprocal of the tensor times the number. */
static float llama3(const model_config *c, float inv)
{
    double original = (double)c->rope_original;
    float factor = (float)c->rope_factor, low = (float)c->rope_low;
    float wavelength = (1.0F / inv) * two_pi;
    if (wavelength > (float)(original / c->rope_low))
        return inv / factor;
    if (wavelength < (float)(original / c->rope_high))
        return inv;
    float turns = (1.0F / wavelength) * (float)original;
    float smooth = (turns - low) / (float)(c->rope_high - c->rope_low);
    float slow = (1.0F - smooth) * inv;
    slow /= factor;
    float fast = smooth * inv;
    return slow + fast;
}

void model_rope_inv_freq(const model_config *c, float *inv_freq)
{
    for (int64_t j = 0; j < c->head_dim / 2; j++) {
        float exponent = (float)(2 * j) / (float)c->head_dim;
        /* pow in double, rounded once, is torch's float pow but for at most
         * one entry by one unit in the last place */
        float p = (float)pow(c->rope_theta, (double)exponent);
        float inv = 1.0F / p;
        if (c->rope == MODEL_ROPE_LINEAR)
            inv /= (float)c->rope_factor;
        else if (c->rope == MODEL_ROPE_LLAMA3)
            inv = llama3(c, inv);
        inv_freq[j] = inv;
    }
}

/* The angle is a float product in transformers; in double the same float
 * frequencies give what that product stands for. */
static void fill(const float *inv, int64_t half, int64_t n_pos, base_dtype acc,
                 void *cos_out, void *sin_out)
{
    for (int64_t p = 0; p < n_pos; p++)
        for (int64_t j = 0; j < half; j++) {
            int64_t at = p * half + j;
            if (acc == BASE_F64) {
                double angle = (double)p * (double)inv[j];
                ((double *)cos_out)[at] = cos(angle);
                ((double *)sin_out)[at] = sin(angle);
            } else {
                float angle = (float)p * inv[j];
                ((float *)cos_out)[at] = cosf(angle);
                ((float *)sin_out)[at] = sinf(angle);
            }
        }
}

lori_status model_rope_upload(const model *m, int64_t n_pos, void *cos_out,
                              void *sin_out, lori_error *err)
{
    backend *be = m->be;
    int64_t half = m->config.head_dim / 2;
    size_t n = (size_t)n_pos * (size_t)half, size = base_dtype_bytes(be->acc);
    float *inv = base_alloc((size_t)half, sizeof *inv);
    unsigned char *both = base_alloc(2 * n, size);
    lori_status st;
    if (inv && both) {
        model_rope_inv_freq(&m->config, inv);
        fill(inv, half, n_pos, be->acc, both, both + n * size);
        be->copy(be, cos_out, both, n * size, BACKEND_TO_DEVICE);
        be->copy(be, sin_out, both + n * size, n * size, BACKEND_TO_DEVICE);
        st = be->sync(be, err);
    } else {
        st = base_no_memory(err, 2 * n * size);
    }
    free(both);
    free(inv);
    return st;
}
