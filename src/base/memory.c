/* memory.c - allocation with checked sizes, and the plan-then-place arena.
 * Refuses every product that overflows. Includes base.h and libc. */
#include <stdlib.h>

#include "base/base.h"

bool base_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool base_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

bool base_mul64(int64_t a, int64_t b, int64_t *out)
{
    if (a < 0 || b < 0)
        return false;
    return !__builtin_mul_overflow(a, b, out);
}

void *base_alloc(size_t n, size_t size)
{
    size_t bytes;
    if (!base_mul(n, size, &bytes))
        return NULL;
    return calloc(1, bytes ? bytes : 1);
}

void *base_resize(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (!base_mul(n, size, &bytes))
        return NULL;
    /* realloc(p, 0) may free p and return NULL, which reads as a failure. */
    return realloc(p, bytes ? bytes : 1);
}

char *base_strndup(const char *s, size_t n)
{
    size_t bytes;
    if (!base_add(n, 1, &bytes))
        return NULL;
    char *copy = malloc(bytes);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *base_strdup(const char *s)
{
    return base_strndup(s, strlen(s));
}

void *base_plan_take(base_plan *plan, size_t n, size_t size)
{
    size_t bytes, end;
    if (plan->overflow || !base_mul(n, size, &bytes) ||
        !base_add(plan->used, bytes, &end) || !base_add(end, 63, &end)) {
        plan->overflow = true;
        return NULL;
    }
    unsigned char *place = plan->base ? plan->base + plan->used : NULL;
    plan->used = end & ~(size_t)63;
    return place;
}
