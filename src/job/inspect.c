/* inspect.c - what a base, an adapter or a mask is, counted from its files.
 * A base needs its config.json only. */
#include "job/job_i.h"

#include <math.h>
#include <stdlib.h>

/* "39,845,888" */
static const char *grouped(int64_t n, char buf[32])
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0 && digits[i - 1] != '-')
            buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = 0;
    return buf;
}

typedef struct role_count {
    int64_t a, b;
} role_count;

/* Entries of A and B a role (in all layers), and their sums in [MODEL_ROLES].
 */
static void count_roles(const adapter_site_spec *specs, int64_t n,
                        role_count count[MODEL_ROLES + 1])
{
    memset(count, 0, (MODEL_ROLES + 1) * sizeof *count);
    for (int64_t i = 0; i < n; i++) {
        const char *last = strrchr(specs[i].path, '.');
        for (int r = 0; r < MODEL_ROLES; r++) {
            if (!last || strcmp(last + 1, model_role_names[r]) != 0)
                continue;
            count[r].a += specs[i].rank * specs[i].in;
            count[r].b += specs[i].rank * specs[i].out;
        }
        count[MODEL_ROLES].a += specs[i].rank * specs[i].in;
        count[MODEL_ROLES].b += specs[i].rank * specs[i].out;
    }
}

static void adapter_plan(const role_count *count, int64_t params, int64_t rank,
                         double sparsity, json_t *facts, base_str *text)
{
    char x[32], y[32];
    int64_t a = count[MODEL_ROLES].a, b = count[MODEL_ROLES].b;
    int64_t kept = adapter_keep_count(b, sparsity);
    base_str_printf(text, "\nAdapter of rank %lld on the seven projections\n\n",
                    (long long)rank);
    base_str_printf(text, "  %-10s %14s %14s\n", "", "A (frozen)", "B");
    json_t *roles = json_object();
    for (int r = 0; r < MODEL_ROLES; r++) {
        base_str_printf(text, "  %-10s %14s %14s\n", model_role_names[r],
                        grouped(count[r].a, x), grouped(count[r].b, y));
        json_object_set_new(roles, model_role_names[r],
                            json_pack("{sIsI}", "A", (json_int_t)count[r].a,
                                      "B", (json_int_t)count[r].b));
    }
    base_str_printf(text, "  %-10s %14s %14s\n\n", "sum", grouped(a, x),
                    grouped(b, y));
    base_str_printf(text, "  %-26s %14s  %8s\n", "trained parameters", "",
                    "of base");
    const struct {
        const char *name;
        int64_t n;
    } rows[] = {{"LoRA (A and B)", a + b}, {"LoRI-D (B)", b}, {"LoRI-S", kept}};
    for (size_t i = 0; i < 3; i++)
        base_str_printf(text, "  %-26s %14s  %7.4f%%\n", rows[i].name,
                        grouped(rows[i].n, x),
                        100.0 * (double)rows[i].n / (double)params);
    base_str_printf(text, "  (LoRI-S keeps int((1 - %g) * %s))\n", sparsity,
                    grouped(b, y));
    json_object_set_new(
        facts, "adapter_plan",
        json_pack("{sIsfsIsIsIsIsIso}", "lora_rank", (json_int_t)rank,
                  "sparsity", sparsity, "A", (json_int_t)a, "B", (json_int_t)b,
                  "lora", (json_int_t)(a + b), "lori_d", (json_int_t)b,
                  "lori_s", (json_int_t)kept, "by_role", roles));
}

static lori_status inspect_base(const lori_inspect_options *o, json_t *facts,
                                base_str *text, lori_error *err)
{
    model_config c;
    char *path = NULL;
    BASE_TRY(hub_find(o->hub_cache, o->base, HUB_FACTS, &path, err));
    lori_status st = model_config_load(path, &c, err);
    free(path);
    BASE_TRY(st);
    int64_t params = model_param_count(&c);
    int64_t rank = o->lora_rank ? o->lora_rank : 32;
    double sparsity = o->sparsity > 0 ? o->sparsity : 0.9;
    if (rank < 1 || rank > 65536)
        return base_fail(err, LORI_INVALID, "lora rank %lld is not in 1..65536",
                         (long long)rank);
    if (!(sparsity > 0 && sparsity < 1))
        return base_fail(err, LORI_INVALID,
                         "sparsity %g is not between 0 and 1", sparsity);
    adapter_site_spec *specs = NULL;
    int64_t n = 0;
    BASE_TRY(model_sites(&c, NULL, 0, rank, (double)rank, &specs, &n, err));
    role_count count[MODEL_ROLES + 1];
    count_roles(specs, n, count);
    model_sites_free(specs, n);

    char x[32];
    base_str_printf(text, "Base model %s\n\n", o->base);
    base_str_printf(text, "  %-22s %s\n", "family", c.family);
    base_str_printf(text, "  %-22s %s\n", "parameters", grouped(params, x));
    const struct {
        const char *name;
        int64_t v;
    } dims[] = {{"layers", c.n_layers},
                {"width", c.d},
                {"feed-forward width", c.ffn},
                {"attention heads", c.n_heads},
                {"key/value heads", c.n_kv_heads},
                {"head size", c.head_dim},
                {"vocabulary", c.vocab},
                {"longest context", c.max_positions},
                {"sliding window", c.window}};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        if (dims[i].v)
            base_str_printf(text, "  %-22s %lld\n", dims[i].name,
                            (long long)dims[i].v);
    base_str_printf(text, "  %-22s %s\n", "tied embeddings",
                    c.tied ? "yes" : "no");
    json_object_set_new(
        facts, "base",
        json_pack("{sssssIsIsIsIsIsIsIsIsIsIsb}", "path", o->base, "family",
                  c.family, "parameters", (json_int_t)params, "layers",
                  (json_int_t)c.n_layers, "hidden_size", (json_int_t)c.d,
                  "intermediate_size", (json_int_t)c.ffn, "heads",
                  (json_int_t)c.n_heads, "kv_heads", (json_int_t)c.n_kv_heads,
                  "head_dim", (json_int_t)c.head_dim, "vocab_size",
                  (json_int_t)c.vocab, "max_positions",
                  (json_int_t)c.max_positions, "window", (json_int_t)c.window,
                  "tied", (int)c.tied));
    adapter_plan(count, params, rank, sparsity, facts, text);
    return LORI_OK;
}

typedef struct adapter_sums {
    int64_t nonzero_b, rank_lo, rank_hi;
    double norm_b, scale_lo, scale_hi;
} adapter_sums;

static adapter_sums sum_adapter(const adapter *ad)
{
    adapter_sums s = {.rank_lo = INT64_MAX, .scale_lo = (double)INFINITY};
    double sq = 0;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *site = &ad->sites[i];
        for (int64_t j = 0; j < site->out * site->rank; j++) {
            double v = (double)site->B[j];
            s.nonzero_b += v != 0;
            sq += v * v;
        }
        s.rank_lo = site->rank < s.rank_lo ? site->rank : s.rank_lo;
        s.rank_hi = site->rank > s.rank_hi ? site->rank : s.rank_hi;
        s.scale_lo = fmin(s.scale_lo, site->scale);
        s.scale_hi = fmax(s.scale_hi, site->scale);
    }
    s.norm_b = sqrt(sq);
    return s;
}

static void origin_facts(const adapter_origin *origin, json_t *into,
                         base_str *text)
{
    char seed[32];
    if (!origin->has_seed) {
        base_str_printf(text, "  %-22s stored in the folder\n", "A");
        return;
    }
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)origin->seed);
    base_str_printf(text, "  %-22s version %d, seed %s\n", "A", origin->version,
                    seed);
    json_object_set_new(into, "a_seed", json_string(seed));
    json_object_set_new(into, "a_version", json_integer(origin->version));
}

static lori_status inspect_adapter(const lori_inspect_options *o, json_t *facts,
                                   base_str *text, lori_error *err)
{
    const char *folder = o->adapter;
    adapter *ad = NULL;
    BASE_TRY(job_read_adapter(o->hub_cache, folder, &ad, err));
    adapter_sums s = sum_adapter(ad);
    int64_t a = adapter_count_a(ad), b = adapter_count_b(ad);
    char x[32], y[32];
    base_str_printf(text, "Adapter %s\n\n", folder);
    base_str_printf(text, "  %-22s %s\n", "method",
                    ad->method ? ad->method : "LoRA (PEFT)");
    base_str_printf(text, "  %-22s %s\n", "base",
                    ad->base_model ? ad->base_model : "not recorded");
    base_str_printf(text, "  %-22s %lld\n", "adapted linears",
                    (long long)ad->n_sites);
    if (s.rank_lo == s.rank_hi)
        base_str_printf(text, "  %-22s %lld\n", "rank", (long long)s.rank_hi);
    else
        base_str_printf(text, "  %-22s %lld to %lld\n", "rank",
                        (long long)s.rank_lo, (long long)s.rank_hi);
    base_str_printf(text, "  %-22s %g%s\n", "scale s", s.scale_hi,
                    s.scale_lo < s.scale_hi ? " (largest)" : "");
    origin_facts(&ad->origin, facts, text);
    base_str_printf(text, "  %-22s %s\n", "entries of A", grouped(a, x));
    base_str_printf(text, "  %-22s %s, %s not zero (%.2f%%)\n", "entries of B",
                    grouped(b, x), grouped(s.nonzero_b, y),
                    b ? 100.0 * (double)s.nonzero_b / (double)b : 0.0);
    base_str_printf(text, "  %-22s %.6g\n", "norm of B", s.norm_b);
    json_object_set_new(
        facts, "adapter",
        json_pack("{ssss?ss?sIsIsIsfsIsIsIsf}", "path", folder, "method",
                  ad->method, "base", ad->base_model, "sites",
                  (json_int_t)ad->n_sites, "rank_min", (json_int_t)s.rank_lo,
                  "rank_max", (json_int_t)s.rank_hi, "scale", s.scale_hi, "A",
                  (json_int_t)a, "B", (json_int_t)b, "B_nonzero",
                  (json_int_t)s.nonzero_b, "B_norm", s.norm_b));
    adapter_free(ad);
    return LORI_OK;
}

static lori_status inspect_mask(const char *folder, json_t *facts,
                                base_str *text, lori_error *err)
{
    adapter_keep *keep = NULL;
    BASE_TRY(adapter_keep_read(folder, &keep, err));
    char x[32], y[32];
    base_str_printf(text, "Mask %s\n\n", folder);
    base_str_printf(text, "  %-22s %g\n", "sparsity", keep->sparsity);
    base_str_printf(text, "  %-22s %s of %s\n", "kept entries of B",
                    grouped(keep->kept, x), grouped(keep->total, y));
    origin_facts(&keep->origin, facts, text);
    base_str_printf(text, "\n  density by projection\n");
    json_t *roles = json_object();
    for (int r = 0; r < MODEL_ROLES; r++) {
        int64_t kept = 0, all = 0;
        for (int64_t i = 0; i < keep->n_sites; i++) {
            const char *last = strrchr(keep->sites[i].path, '.');
            if (!last || strcmp(last + 1, model_role_names[r]) != 0)
                continue;
            kept += keep->sites[i].kept;
            all += keep->sites[i].out * keep->sites[i].rank;
        }
        if (!all)
            continue;
        double density = (double)kept / (double)all;
        base_str_printf(text, "  %-22s %6.2f%%\n", model_role_names[r],
                        100 * density);
        json_object_set_new(roles, model_role_names[r], json_real(density));
    }
    json_object_set_new(facts, "mask",
                        json_pack("{sssfsIsIso}", "path", folder, "sparsity",
                                  keep->sparsity, "kept",
                                  (json_int_t)keep->kept, "total",
                                  (json_int_t)keep->total, "density", roles));
    adapter_keep_free(keep);
    return LORI_OK;
}

lori_status job_inspect(const lori_inspect_options *o, lori_report **out,
                        lori_error *err)
{
    *out = NULL;
    if (!o->base && !o->adapter && !o->mask)
        return base_fail(
            err, LORI_INVALID,
            "nothing to inspect: name --base, --adapter or --mask");
    json_t *facts = json_object();
    base_str text = {0};
    lori_status st = LORI_OK;
    if (o->base)
        st = inspect_base(o, facts, &text, err);
    if (!st && o->adapter) {
        base_str_puts(&text, text.len ? "\n" : "");
        st = inspect_adapter(o, facts, &text, err);
    }
    if (!st && o->mask) {
        base_str_puts(&text, text.len ? "\n" : "");
        st = inspect_mask(o->mask, facts, &text, err);
    }
    if (st) {
        json_decref(facts);
        base_str_free(&text);
        return st;
    }
    return report_new(facts, &text, out, err);
}

lori_status job_env(const char *isa, lori_report **out, lori_error *err)
{
    *out = NULL;
    base_str text = {0}, machine = {0};
    backend_machine(&machine);
    backend_options open = {.name = "cpu", .dtype = BASE_BF16, .isa = isa};
    backend *be = NULL;
    lori_status st = backend_open(&open, &be, err);
    if (st || machine.failed) {
        base_str_free(&machine);
        return st ? st : base_no_memory(err, 1);
    }
    base_str_printf(&text, "lori     %s\n", LORI_VERSION);
    base_str_printf(&text, "build    C17, %s\n", __VERSION__);
    base_str_printf(&text, "machine  %s\n", machine.s ? machine.s : "unknown");
    base_str_printf(&text, "cpu      %s\n", be->detail);
    base_str_printf(&text, "threads  %d\n", be->n_threads);
    const char *curl = hub_http_library();
    base_str_printf(&text, "curl     %s\n",
                    curl ? curl : "not in this build: no `lori pull`");
    base_str_puts(&text, "cuda     not in this build\n"
                         "mpi      not in this build\n");
    json_t *facts =
        json_pack("{ss ss ss ss ss? si}", "version", LORI_VERSION, "compiler",
                  __VERSION__, "machine", machine.s ? machine.s : "", "backend",
                  be->detail, "curl", curl, "threads", be->n_threads);
    backend_close(be);
    base_str_free(&machine);
    return report_new(facts, &text, out, err);
}
