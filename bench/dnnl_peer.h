/* dnnl_peer.h - oneDNN's product of bf16, as a program that uses the library
 * for it would have it: one matmul primitive for all threads, of plain
 * row-major operands. For oneDNN 2 and 3. */
#ifndef DNNL_PEER_H
#define DNNL_PEER_H

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"

typedef struct peer {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
} peer;

static void peer_need(dnnl_status_t st, const char *what)
{
    if (st) {
        fprintf(stderr, "oneDNN: %s: status %d\n", what, (int)st);
        exit(1);
    }
}

/* rows and cols of the matrix as the product takes it. */
static dnnl_memory_desc_t peer_layout(backend_view v, int64_t rows,
                                      int64_t cols, bool turned)
{
    const dnnl_dims_t dims = {rows, cols};
    const dnnl_dims_t steps = {turned ? 1 : v.ld, turned ? v.ld : 1};
    const dnnl_data_type_t type = v.dtype == BASE_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t out;
#if DNNL_VERSION_MAJOR >= 3
    peer_need(dnnl_memory_desc_create_with_strides(&out, 2, dims, type, steps),
              "layout");
#else
    peer_need(dnnl_memory_desc_init_by_strides(&out, 2, dims, type, steps),
              "layout");
#endif
    return out;
}

/* c = a w^T with b_rows_n, else c = a w. */
static void peer_open(peer *p, int threads, backend_view a, backend_view w,
                      bool b_rows_n, backend_view c)
{
    omp_set_num_threads(threads);
    const dnnl_memory_desc_t la = peer_layout(a, a.rows, a.cols, false);
    const dnnl_memory_desc_t lb = peer_layout(w, a.cols, c.cols, b_rows_n);
    const dnnl_memory_desc_t lc = peer_layout(c, c.rows, c.cols, false);
    dnnl_primitive_desc_t desc;
    peer_need(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine");
    peer_need(
        dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags),
        "stream");
#if DNNL_VERSION_MAJOR >= 3
    peer_need(dnnl_matmul_primitive_desc_create(&desc, p->engine, la, lb, NULL,
                                                lc, NULL),
              "matmul");
    peer_need(dnnl_memory_create(&p->a, la, p->engine, a.data), "operand");
    peer_need(dnnl_memory_create(&p->b, lb, p->engine, w.data), "operand");
    peer_need(dnnl_memory_create(&p->c, lc, p->engine, c.data), "operand");
    dnnl_memory_desc_destroy(la);
    dnnl_memory_desc_destroy(lb);
    dnnl_memory_desc_destroy(lc);
#else
    dnnl_matmul_desc_t op;
    peer_need(dnnl_matmul_desc_init(&op, &la, &lb, NULL, &lc), "matmul");
    peer_need(dnnl_primitive_desc_create(&desc, &op, NULL, p->engine, NULL),
              "matmul");
    peer_need(dnnl_memory_create(&p->a, &la, p->engine, a.data), "operand");
    peer_need(dnnl_memory_create(&p->b, &lb, p->engine, w.data), "operand");
    peer_need(dnnl_memory_create(&p->c, &lc, p->engine, c.data), "operand");
#endif
    peer_need(dnnl_primitive_create(&p->primitive, desc), "primitive");
    peer_need(dnnl_primitive_desc_destroy(desc), "primitive");
}

static void peer_run(const peer *p)
{
    const dnnl_exec_arg_t args[3] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    peer_need(dnnl_primitive_execute(p->primitive, p->stream, 3, args), "run");
    peer_need(dnnl_stream_wait(p->stream), "run");
}

static void peer_close(peer *p)
{
    if (!p->primitive)
        return;
    dnnl_memory_destroy(p->a);
    dnnl_memory_destroy(p->b);
    dnnl_memory_destroy(p->c);
    dnnl_primitive_destroy(p->primitive);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
}

#endif
