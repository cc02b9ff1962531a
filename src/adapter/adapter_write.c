/* adapter_write.c - an adapter to a PEFT folder: adapter_config.json with the
 * 18 keys that every PEFT from 0.10 on accepts in silence, the weights, a model
 * card, and lori.json. The folder appears whole or not at all. What is read
 * back and written again is the same bytes.
 * Source: spec/peft.md 1.3, 2.1, 2.2; spec/hf.md 5.2. */
#include "adapter/adapter_i.h"

#include <math.h>
#include <stdlib.h>

#define CARD_FILE "README.md"
#define PREFIX    "base_model.model."

/* ---- which modules -------------------------------------------------- */

/* True when every site's last name stands for the same module in each of the
 * layers 0..L-1, so that short names say exactly what is adapted. The base's
 * depth is not known here: of an adapter that ends below it, PEFT warns that
 * the upper layers are missing and adds zeros there. */
static bool short_names_suffice(const adapter *ad)
{
    int64_t layers =
        adapter_path_layer(ad->sites[ad->n_sites - 1].path, NULL, NULL) + 1;
    if (layers < 1 || ad->n_sites % layers != 0)
        return false;
    int64_t per_layer = ad->n_sites / layers;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const char *path = ad->sites[i].path;
        const char *first = ad->sites[i % per_layer].path;
        size_t at, n, at0, n0;
        if (adapter_path_layer(path, &at, &n) != i / per_layer ||
            adapter_path_layer(first, &at0, &n0) != 0 || at != at0 ||
            strncmp(path, first, at) != 0 ||
            strcmp(path + at + n, first + at0 + n0) != 0)
            return false;
        /* Two modules of one layer must not share their last name. */
        for (int64_t k = 0; i < per_layer && k < i; k++)
            if (strcmp(adapter_path_last(path),
                       adapter_path_last(ad->sites[k].path)) == 0)
                return false;
    }
    return true;
}

static int order_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* target_modules: last names, or whole paths; sorted. NULL: no memory. */
static json_t *target_list(const adapter *ad)
{
    bool brief = short_names_suffice(ad);
    int64_t n = ad->n_sites;
    if (brief)
        n /= adapter_path_layer(ad->sites[n - 1].path, NULL, NULL) + 1;
    const char **names = base_alloc((size_t)n, sizeof *names);
    json_t *list = json_array();
    for (int64_t i = 0; names && i < n; i++)
        names[i] =
            brief ? adapter_path_last(ad->sites[i].path) : ad->sites[i].path;
    if (names)
        qsort(names, (size_t)n, sizeof *names, order_text);
    bool bad = !names || !list;
    for (int64_t i = 0; !bad && i < n; i++)
        bad = json_array_append_new(list, json_string(names[i])) != 0;
    free(names);
    if (!bad)
        return list;
    json_decref(list);
    return NULL;
}

/* ---- ranks and alphas ----------------------------------------------- */

static double value_of(const adapter_site *site, bool rank)
{
    return rank ? (double)site->rank : site->alpha;
}

/* The value that most sites have; the earliest of equals. */
static double common_value(const adapter *ad, bool rank)
{
    double best = value_of(&ad->sites[0], rank);
    int64_t best_count = 0;
    for (int64_t i = 0; i < ad->n_sites && best_count * 2 <= ad->n_sites; i++) {
        double v = value_of(&ad->sites[i], rank);
        int64_t count = 0;
        for (int64_t k = 0; k < ad->n_sites; k++)
            count += value_of(&ad->sites[k], rank) == v;
        if (count > best_count) {
            best_count = count;
            best = v;
        }
    }
    return best;
}

static json_t *number(double v)
{
    if (v == floor(v) && fabs(v) < 0x1p53)
        return json_integer((json_int_t)v);
    return json_real(v);
}

/* Text as a regular expression that matches itself. */
static void add_escaped(base_str *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("\\^$.|?*+()[]{}-", *text))
            base_str_add(out, "\\", 1);
        base_str_add(out, text, 1);
    }
}

/* All sites with the last name of site `i` have its value. */
static bool same_by_name(const adapter *ad, int64_t i, bool rank)
{
    const char *last = adapter_path_last(ad->sites[i].path);
    for (int64_t k = 0; k < ad->n_sites; k++)
        if (value_of(&ad->sites[k], rank) != value_of(&ad->sites[i], rank) &&
            strcmp(adapter_path_last(ad->sites[k].path), last) == 0)
            return false;
    return true;
}

/* rank_pattern or alpha_pattern: keys that cannot overlap, a last name where
 * it decides the value, else the anchored path. NULL: no memory. */
static json_t *pattern_object(const adapter *ad, double common, bool rank)
{
    json_t *o = json_object();
    base_str key = {0};
    bool bad = !o;
    for (int64_t i = 0; !bad && i < ad->n_sites; i++) {
        double v = value_of(&ad->sites[i], rank);
        if (v == common)
            continue;
        base_str_clear(&key);
        if (same_by_name(ad, i, rank)) {
            add_escaped(&key, adapter_path_last(ad->sites[i].path));
        } else {
            base_str_puts(&key, "^");
            add_escaped(&key, ad->sites[i].path);
        }
        bad = key.failed || json_object_set_new(o, key.s, number(v)) != 0;
    }
    base_str_free(&key);
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

/* ---- files ---------------------------------------------------------- */

static lori_status write_config(const char *folder, const adapter *ad,
                                lori_error *err)
{
    double r = common_value(ad, true), alpha = common_value(ad, false);
    const char *base = ad->base_model;
    const struct {
        const char *key;
        json_t *value;
    } keys[] = {
        {"alpha_pattern", pattern_object(ad, alpha, false)},
        {"base_model_name_or_path", base ? json_string(base) : json_null()},
        {"bias", json_string("none")},
        {"fan_in_fan_out", json_false()},
        {"inference_mode", json_true()},
        {"init_lora_weights", json_true()},
        {"layers_pattern", json_null()},
        {"layers_to_transform", json_null()},
        {"lora_alpha", number(alpha)},
        {"lora_dropout", json_real(0.0)},
        {"modules_to_save", json_null()},
        {"peft_type", json_string("LORA")},
        {"r", number(r)},
        {"rank_pattern", pattern_object(ad, r, true)},
        {"revision", json_null()},
        {"target_modules", target_list(ad)},
        {"task_type", json_string("CAUSAL_LM")},
        {"use_rslora", json_boolean(ad->use_rslora)},
    };
    json_t *o = json_object();
    int bad = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        bad |= json_object_set_new(o, keys[i].key, keys[i].value);
    char *path = base_path_join(folder, ADAPTER_CONFIG_FILE);
    lori_status st =
        bad || !path ? base_no_memory(err, 4096)
                     : format_json_write(path, o,
                                         FORMAT_JSON_SORT | FORMAT_JSON_INDENT |
                                             FORMAT_JSON_ASCII,
                                         false, err);
    free(path);
    json_decref(o);
    return st;
}

/* Two matrices a site, then the extras. */
typedef struct weights {
    const adapter *ad;
    format_desc *descs;
    char **names;
    size_t n;
} weights;

static void weights_fini(weights *w)
{
    for (size_t i = 0; w->names && i < w->n; i++)
        free(w->names[i]);
    free(w->names);
    free(w->descs);
}

static lori_status describe(weights *w, base_dtype dtype, lori_error *err)
{
    const adapter *ad = w->ad;
    size_t n = 2 * (size_t)ad->n_sites + (size_t)ad->n_extras;
    w->descs = base_alloc(n, sizeof *w->descs);
    w->names = base_alloc(n, sizeof *w->names);
    if (!w->descs || !w->names)
        return base_no_memory(err, n * sizeof *w->descs);
    for (size_t i = 0; i < n; i++) {
        format_desc *d = &w->descs[i];
        base_str name = {0};
        d->n_dims = 2;
        if (i < 2 * (size_t)ad->n_sites) {
            const adapter_site *s = &ad->sites[i / 2];
            bool is_b = i % 2;
            base_str_printf(&name, PREFIX "%s.lora_%c.weight", s->path,
                            is_b ? 'B' : 'A');
            d->dtype = dtype;
            d->shape[0] = is_b ? s->out : s->rank;
            d->shape[1] = is_b ? s->rank : s->in;
        } else {
            const adapter_extra *e = &ad->extras[i - 2 * (size_t)ad->n_sites];
            base_str_printf(&name, PREFIX "%s", e->name);
            d->dtype = e->dtype;
            d->shape[0] = e->rows;
            d->shape[1] = e->cols;
        }
        w->names[w->n] = base_str_take(&name);
        if (!w->names[w->n])
            return base_no_memory(err, 256);
        d->name = w->names[w->n++];
    }
    return LORI_OK;
}

/* The bytes of one tensor, in its dtype, a piece at a time. */
static lori_status emit(void *context, const format_desc *desc,
                        format_sink *sink, lori_error *err)
{
    enum { PIECE = 8192 };
    const weights *w = context;
    size_t i = 0, n = (size_t)(desc->shape[0] * desc->shape[1]);
    while (strcmp(w->names[i], desc->name) != 0)
        i++; /* every name was described */
    size_t size = base_dtype_bytes(desc->dtype);
    if (i >= 2 * (size_t)w->ad->n_sites)
        return format_sink_write(
            sink, w->ad->extras[i - 2 * (size_t)w->ad->n_sites].data, n * size,
            err);
    const adapter_site *s = &w->ad->sites[i / 2];
    const float *x = i % 2 ? s->B : s->A;
    if (desc->dtype == BASE_F32)
        return format_sink_write(sink, x, n * size, err);
    uint16_t half[PIECE];
    for (size_t k = 0; k < n; k += PIECE) {
        size_t m = n - k < PIECE ? n - k : PIECE;
        base_from_f32(x + k, half, desc->dtype, m);
        BASE_TRY(format_sink_write(sink, half, m * size, err));
    }
    return LORI_OK;
}

static lori_status write_weights(const char *folder, const adapter *ad,
                                 base_dtype dtype, lori_error *err)
{
    weights w = {.ad = ad};
    lori_status st = describe(&w, dtype, err);
    char *path = base_path_join(folder, ADAPTER_WEIGHTS_FILE);
    if (st == LORI_OK && !path)
        st = base_no_memory(err, strlen(folder));
    const format_pair meta = {"format", "pt"};
    if (st == LORI_OK)
        st = format_st_emit(path, w.descs, w.n, &meta, 1, emit, &w, err);
    free(path);
    weights_fini(&w);
    return st;
}

static lori_status write_card(const char *folder, const adapter *ad,
                              const char *card, lori_error *err)
{
    base_str text = {0};
    if (card)
        base_str_puts(&text, card);
    else
        adapter_card(ad, &text);
    char *path = base_path_join(folder, CARD_FILE);
    lori_status st = text.failed || !path
                         ? base_no_memory(err, 4096)
                         : base_file_write(path, text.s, text.len, err);
    free(path);
    base_str_free(&text);
    return st;
}

/* Nothing is written that could not be read again. */
static lori_status check_values(const adapter *ad, const char *folder,
                                lori_error *err)
{
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        BASE_TRY(
            adapter_check_finite(s->A, s->rank * s->in, folder, s->path, err));
        BASE_TRY(
            adapter_check_finite(s->B, s->rank * s->out, folder, s->path, err));
    }
    return LORI_OK;
}

lori_status adapter_write(const adapter *ad, const char *folder,
                          const adapter_write_options *options, lori_error *err)
{
    adapter_write_options o = {0};
    if (options)
        o = *options;
    /* 0 is BASE_BOOL: no type of an adapter, so the default was meant. */
    base_dtype dtype = o.dtype == BASE_BOOL ? BASE_F32 : o.dtype;
    if (dtype != BASE_F32 && dtype != BASE_BF16 && dtype != BASE_F16)
        return base_fail(err, LORI_INVALID,
                         "adapters are written as F32, BF16 or F16, not %s",
                         base_dtype_name(dtype));
    BASE_TRY(check_values(ad, folder, err));
    base_outdir *dir = NULL;
    BASE_TRY(
        base_outdir_open(folder, o.replace, ADAPTER_CONFIG_FILE, &dir, err));
    const char *place = base_outdir_path(dir);
    lori_status st = write_config(place, ad, err);
    if (st == LORI_OK)
        st = write_weights(place, ad, dtype, err);
    if (st == LORI_OK)
        st = adapter_facts_write(place, ad, err);
    if (st == LORI_OK)
        st = write_card(place, ad, o.card, err);
    if (st != LORI_OK) {
        base_outdir_abort(dir);
        return st;
    }
    return base_outdir_commit(dir, err);
}
