/* jinja_memory.c - what a template's parsing and running stand on: the arena,
 * the first failure, the budget of steps and depth. Includes base only. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja_i.h"

/* ---- arena
 * ------------------------------------------------------------------- */

struct jinja_block {
    jinja_block *next;
    size_t used, size;
    _Alignas(16) char bytes[];
};

static bool add_block(jinja_arena *arena, size_t n)
{
    size_t size = arena->total < 4096 ? 4096 : arena->total;
    if (size > (size_t)1 << 20)
        size = (size_t)1 << 20;
    if (size < n)
        size = n;
    if (n > arena->max || arena->total > arena->max - n)
        return false;
    jinja_block *block = malloc(sizeof *block + size);
    if (!block)
        return false;
    *block = (jinja_block){.next = arena->block, .size = size};
    arena->block = block;
    arena->total += size;
    return true;
}

/* n bytes that are not cleared. */
static char *take(jinja_arena *arena, size_t n)
{
    size_t used = arena->block ? (arena->block->used + 15) & ~(size_t)15 : 0;
    if (arena->failed)
        return NULL;
    if (!arena->block || used > arena->block->size ||
        n > arena->block->size - used) {
        if (!add_block(arena, n)) {
            arena->failed = true;
            return NULL;
        }
        used = 0;
    }
    arena->block->used = used + n;
    return arena->block->bytes + used;
}

void *jinja_take(jinja_arena *arena, size_t n, size_t size)
{
    size_t bytes;
    if (!base_mul(n, size, &bytes) || bytes > arena->max) {
        arena->failed = true;
        return NULL;
    }
    char *p = take(arena, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

char *jinja_extend(jinja_arena *arena, const char *s, size_t have, size_t n)
{
    jinja_block *block = arena->block;
    if (block && have && s + have == block->bytes + block->used &&
        n <= block->size - block->used) {
        char *start = block->bytes + block->used - have;
        block->used += n;
        return start;
    }
    /* Grown once, it is likely to grow again. */
    size_t spare = have < (size_t)1 << 20 ? have : 0;
    char *copy = take(arena, have + n + spare);
    if (!copy)
        return NULL;
    arena->block->used -= spare;
    if (have)
        memcpy(copy, s, have);
    return copy;
}

void jinja_arena_free(jinja_arena *arena)
{
    while (arena->block) {
        jinja_block *next = arena->block->next;
        free(arena->block);
        arena->block = next;
    }
}

/* ---- failure
 * ------------------------------------------------------------------- */

static BASE_PRINTF(3, 0) void set_fault(jinja_fault *fault, lori_status status,
                                        const char *fmt, va_list ap)
{
    char message[1024];
    if (fault->status != LORI_OK)
        return;
    vsnprintf(message, sizeof message, fmt, ap);
    for (char *c = message; *c; c++) /* a message is one line */
        *c = *c == '\n' || *c == '\r' ? ' ' : *c;
    fault->status = base_fail(fault->err, status, "%s:%u: %s", fault->name,
                              fault->line, message);
}

void jinja_fail(jinja_fault *fault, lori_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_fault(fault, status, fmt, ap);
    va_end(ap);
}

jinja_value jinja_error(jinja_run *run, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_fault(&run->fault, LORI_INVALID, fmt, ap);
    va_end(ap);
    return (jinja_value){.kind = JINJA_UNDEFINED};
}

bool jinja_step(jinja_run *run, size_t n)
{
    run->steps -= 1 + (int64_t)(n / 64);
    if (run->arena.failed)
        jinja_fail(&run->fault, LORI_UNSUPPORTED,
                   "the template needs more than %zu MiB of memory",
                   JINJA_MAX_MEMORY >> 20);
    else if (run->steps < 0)
        jinja_fail(&run->fault, LORI_UNSUPPORTED,
                   "the template takes more than %d steps", JINJA_MAX_STEPS);
    return !jinja_failed(run);
}

bool jinja_enter(jinja_run *run)
{
    if (++run->depth > JINJA_MAX_DEPTH)
        jinja_fail(&run->fault, LORI_UNSUPPORTED,
                   "the template or its data are nested deeper than %d",
                   JINJA_MAX_DEPTH);
    return !jinja_failed(run);
}
