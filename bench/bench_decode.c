/* bench_decode.c - steps of generation with 1, 2, 4, 8, 16 and 32 sequences,
 * beside the time that reading the weights or multiplying with them takes at
 * least: with the weights as they are mapped, then with compact copies of them.
 * Reading and multiply-adds are measured here, between the steps; the time of
 * reading keys and values, which longer prompts have more of, is shown beside
 * them and no part of what a step is compared with.
 * Usage: bench_decode MODEL [threads [sequences [instruction set [prompt]]]];
 * 0: its default, all counts; -: the default instruction set. */
#include "infer/infer.h"
#include "measure.h"

enum { STEPS = 40, PROMPT = 32, MOST = 32, STEP_TOKENS = MOST * PROMPT };

static void must(lori_status st, const lori_error *err)
{
    if (!st)
        return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

typedef struct bench {
    backend *be;
    model *m;
    infer_engine *engine;
    char *memory;
    int prompt; /* its tokens */
} bench;

/* Weights that a token is multiplied with. */
static double weights_of(const model_config *c)
{
    double d = (double)c->d, f = (double)c->ffn;
    double q = (double)(c->n_heads * c->head_dim);
    double kv = (double)(c->n_kv_heads * c->head_dim);
    return (double)c->n_layers * d * (2 * q + 2 * kv + 3 * f) +
           d * (double)c->vocab;
}

/* Steps until all prompts are read. */
static int first_steps(const bench *b, int n)
{
    return (n * b->prompt + STEP_TOKENS - 1) / STEP_TOKENS;
}

/* Sequences that all start in the next step, and differ. */
static void submit(bench *b, int n, int32_t *prompts, infer_result *results)
{
    lori_error err;
    const int64_t vocab = model_get_config(b->m)->vocab;
    for (int i = 0; i < n; i++) {
        int32_t *prompt = prompts + i * b->prompt;
        for (int t = 0; t < b->prompt; t++)
            prompt[t] = (int32_t)((1000 + 7919 * (t + 31 * (i + n))) % vocab);
        infer_request q = {.tag = i,
                           .prompt = prompt,
                           .n_prompt = b->prompt,
                           .max_new_tokens = STEPS + 2 + first_steps(b, n)};
        must(infer_submit(b->engine, &q, &results[i], &err), &err);
    }
}

static void measure(bench *b, int n)
{
    int32_t *prompts = need(malloc((size_t)(n * b->prompt) * sizeof *prompts));
    infer_result results[MOST] = {{0}};
    double step[STEPS], read[STEPS / 8], peak[STEPS / 8];
    const char *isa = b->be->detail; /* begins with its name */
    const double weights = weights_of(model_get_config(b->m));
    char name[16] = {0};
    lori_error err;
    sscanf(isa, "%15s", name);
    submit(b, n, prompts, results);
    for (int i = 0; i <= first_steps(b, n); i++) /* and one to warm up */
        must(infer_step(b->engine, NULL, &err), &err);
    for (int i = 0; i < STEPS; i++) {
        if (i % 8 == 0) {
            read[i / 8] = read_once(b->be, b->memory, b->be->n_threads);
            peak[i / 8] = peak_once(b->be, name, b->be->n_threads);
        }
        double s = base_now_s();
        must(infer_step(b->engine, NULL, &err), &err);
        step[i] = base_now_s() - s;
    }
    infer_clear(b->engine);
    infer_results_free(results, n);
    free(prompts);
    double s = median(step, STEPS), bytes = 2 * weights;
    double reading = bytes / median(read, STEPS / 8);
    double kept = (double)model_cache_position_bytes(b->m) * n *
                  (b->prompt + STEPS / 2.0) / median(read, STEPS / 8);
    double multiplying = 2 * weights * n / median(peak, STEPS / 8);
    double least = reading > multiplying ? reading : multiplying;
    printf("%2d sequence%s %7.2f ms, %6.1f tok/s, %5.1f GB/s; reading alone "
           "%6.2f ms, keys and values %5.2f, multiplying alone %6.2f: "
           "%.2f x the longer\n",
           n, n == 1 ? ": " : "s:", s * 1e3, n / s, bytes / s * 1e-9,
           reading * 1e3, kept * 1e3, multiplying * 1e3, s / least);
    fflush(stdout);
}

static void measure_all(bench *b, const infer_limits *limits, int only)
{
    lori_error err;
    must(infer_engine_new(b->m, limits, &b->engine, &err), &err);
    for (int n = only ? only : 1; n <= (only ? only : MOST); n *= 2)
        measure(b, n);
    infer_engine_free(b->engine);
}

int main(int argc, char **argv)
{
    const int only = argc > 3 ? atoi(argv[3]) : 0;
    bench b = {.prompt = argc > 5 ? atoi(argv[5]) : PROMPT};
    if (argc < 2 || argc > 6 || only < 0 || only > MOST || b.prompt < 1 ||
        b.prompt > 1 << 16) {
        fputs("usage: bench_decode MODEL [threads [sequences [isa [prompt]]]]"
              "\n",
              stderr);
        return 2;
    }
    lori_error err;
    backend_options options = {
        .dtype = BASE_BF16,
        .n_threads = argc > 2 ? atoi(argv[2]) : 0,
        .isa = argc > 4 && strcmp(argv[4], "-") != 0 ? argv[4] : NULL};
    infer_limits limits = {.max_batch = only ? only : MOST,
                           .step_tokens = STEP_TOKENS,
                           .context = b.prompt + STEPS + 2 +
                                      first_steps(&b, only ? only : MOST),
                           .compact_bytes = -1,
                           .draft_tokens = -1};
    must(backend_open(&options, &b.be, &err), &err);
    must(model_open(argv[1], b.be, &b.m, &err), &err);
    b.memory = memory_to_read();
    puts(b.be->detail);
    puts("weights as they are mapped:");
    measure_all(&b, &limits, only);
    double s = base_now_s();
    double copies = (double)model_compact(b.m, INT64_MAX);
    printf("compact copies, %.3f of the bytes, made in %.2f s:\n",
           copies / 2 / weights_of(model_get_config(b.m)), base_now_s() - s);
    measure_all(&b, &limits, only);
    free(b.memory);
    model_close(b.m);
    backend_close(b.be);
    return 0;
}
