/* weights.c - a model folder -> an open model. Looks up every tensor and its
 * shape before it opens one; the first deviation is an error that names file,
 * tensor and what was expected. Owns the mapped checkpoint and the opened
 * weights. Refuses missing, extra and misshapen tensors, and a tied model
 * with another head. May include base, format, backend, model.
 * Source: spec/hf.md 3 (names) and 0 (trap 7). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/model_i.h"

/* One tensor that the config asks for. */
typedef struct wanted {
    char name[96];
    int64_t rows, cols; /* cols 0: a vector of `rows` */
    const format_tensor *tensor;
} wanted;

typedef struct wanted_list {
    wanted *items;
    size_t n;
} wanted_list;

/* Names with or without "model.", or with it twice, as transformers 5 reads
 * them. Anything else is another name. */
static const format_tensor *find_tensor(const format_store *store,
                                        const char *name)
{
    static const char head[] = "model.";
    const format_tensor *t = format_store_find(store, name);
    if (t || strncmp(name, head, sizeof head - 1) != 0)
        return t;
    t = format_store_find(store, name + sizeof head - 1);
    if (t)
        return t;
    char doubled[96 + sizeof head];
    snprintf(doubled, sizeof doubled, "%s%s", head, name);
    return format_store_find(store, doubled);
}

static BASE_PRINTF(4, 5) void want(wanted_list *list, int64_t rows,
                                   int64_t cols, const char *fmt, ...)
{
    wanted *w = &list->items[list->n++];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->name, sizeof w->name, fmt, ap);
    va_end(ap);
    w->rows = rows;
    w->cols = cols;
}

#define PER_LAYER (2 + 2 * MODEL_ROLES)

/* The order here is the order in which open_all() takes them. */
static lori_status list_wanted(const model_config *c, wanted_list *list,
                               lori_error *err)
{
    size_t most = 3 + (size_t)c->n_layers * PER_LAYER;
    *list = (wanted_list){base_alloc(most, sizeof *list->items), 0};
    if (!list->items)
        return base_no_memory(err, most * sizeof *list->items);
    want(list, c->vocab, c->d, "model.embed_tokens.weight");
    want(list, c->d, 0, "model.norm.weight");
    if (!c->tied)
        want(list, c->vocab, c->d, "lm_head.weight");
    for (int64_t l = 0; l < c->n_layers; l++) {
        long long i = l;
        want(list, c->d, 0, "model.layers.%lld.input_layernorm.weight", i);
        want(list, c->d, 0, "model.layers.%lld.post_attention_layernorm.weight",
             i);
        for (int r = 0; r < MODEL_ROLES; r++) {
            int64_t out, in;
            model_linear_shape(c, r, &out, &in);
            const char *name = model_linears[r].name;
            want(list, out, in, "model.layers.%lld.%s.weight", i, name);
            if (model_linear_bias(c, r))
                want(list, out, 0, "model.layers.%lld.%s.bias", i, name);
        }
    }
    return LORI_OK;
}

static void shape_text(base_str *text, const int64_t *shape, int n)
{
    base_str_puts(text, "[");
    for (int i = 0; i < n; i++)
        base_str_printf(text, "%s%lld", i ? ", " : "", (long long)shape[i]);
    base_str_puts(text, "]");
}

static lori_status check_tensor(const char *folder, const wanted *w,
                                lori_error *err)
{
    const format_tensor *t = w->tensor;
    const int64_t expected[2] = {w->rows, w->cols};
    int n_dims = w->cols ? 2 : 1;
    bool same = t && t->n_dims == n_dims && t->shape[0] == expected[0] &&
                (n_dims == 1 || t->shape[1] == expected[1]);
    if (same && base_dtype_is_float(t->dtype))
        return LORI_OK;
    base_str want_text = {0}, have_text = {0};
    shape_text(&want_text, expected, n_dims);
    if (t)
        shape_text(&have_text, t->shape, t->n_dims);
    lori_status st;
    if (want_text.failed || have_text.failed)
        st = base_no_memory(err, 64);
    else if (!t)
        st = base_fail(err, LORI_NOT_FOUND,
                       "%s: tensor '%s' %s is missing from the checkpoint",
                       folder, w->name, want_text.s);
    else if (!same)
        st = base_fail(err, LORI_MISMATCH,
                       "%s: tensor '%s': shape %s, expected %s by config.json",
                       t->file, t->name, have_text.s, want_text.s);
    else
        st = base_fail(err, LORI_UNSUPPORTED,
                       "%s: tensor '%s': dtype %s; expected F16, BF16, F32 or "
                       "F64",
                       t->file, t->name, base_dtype_name(t->dtype));
    base_str_free(&want_text);
    base_str_free(&have_text);
    return st;
}

/* With tied embeddings a head in the file must be the embedding: transformers
 * 4 would drop another one, 5 would use it. */
static lori_status check_tied_head(const format_tensor *head,
                                   const format_tensor *embed, lori_error *err)
{
    if (head->dtype == embed->dtype && head->n_dims == 2 &&
        head->shape[0] == embed->shape[0] &&
        head->shape[1] == embed->shape[1] &&
        !memcmp(head->data, embed->data, embed->bytes))
        return LORI_OK;
    return base_fail(err, LORI_MISMATCH,
                     "%s: config.json says tie_word_embeddings, but tensor "
                     "'lm_head.weight' differs from '%s': set "
                     "tie_word_embeddings to false, or remove the tensor",
                     head->file, embed->name);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static lori_status check_extra(const model *m, const wanted_list *list,
                               const format_tensor *tied_head, lori_error *err)
{
    for (size_t i = 0; i < format_store_count(m->store); i++) {
        const format_tensor *t = format_store_at(m->store, i);
        /* a buffer that transformers once saved: computed from the config */
        bool known =
            t == tied_head || ends_with(t->name, "rotary_emb.inv_freq");
        for (size_t k = 0; !known && k < list->n; k++)
            known = list->items[k].tensor == t;
        if (!known)
            return base_fail(err, LORI_FORMAT,
                             "%s: tensor '%s' does not belong to a %s model "
                             "with this config.json",
                             t->file, t->name, m->config.family);
    }
    return LORI_OK;
}

static lori_status check_all(model *m, const char *folder, wanted_list *list,
                             lori_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        list->items[i].tensor = find_tensor(m->store, list->items[i].name);
        BASE_TRY(check_tensor(folder, &list->items[i], err));
    }
    m->embed_tensor = list->items[0].tensor;
    m->dtype = m->embed_tensor->dtype;
    const format_tensor *tied_head = NULL;
    if (m->config.tied) {
        m->head_tensor = m->embed_tensor;
        tied_head = format_store_find(m->store, "lm_head.weight");
        if (tied_head)
            BASE_TRY(check_tied_head(tied_head, m->embed_tensor, err));
    } else {
        m->head_tensor = list->items[2].tensor;
    }
    return check_extra(m, list, tied_head, err);
}

/* ---- opening ---------------------------------------------------------- */

static lori_status open_matrix(model *m, const format_tensor *t,
                               backend_weight **out, lori_error *err)
{
    backend_tensor tensor = {t->name, t->data, t->shape[0], t->shape[1],
                             t->dtype};
    lori_status st = m->be->weight_open(m->be, &tensor, out, err);
    return st ? base_prefix(err, st, "%s: tensor '%s'", t->file, t->name) : st;
}

/* n values of any float type as acc. */
static void to_acc(const format_tensor *t, base_dtype acc, void *dst)
{
    size_t n = (size_t)t->shape[0];
    if (acc != BASE_F64) {
        base_to_f32(t->data, t->dtype, dst, n);
    } else if (t->dtype == BASE_F64) {
        memcpy(dst, t->data, n * sizeof(double));
    } else {
        size_t size = base_dtype_bytes(t->dtype);
        for (size_t i = 0; i < n; i++) {
            float value;
            base_to_f32((const char *)t->data + i * size, t->dtype, &value, 1);
            ((double *)dst)[i] = (double)value;
        }
    }
}

/* Norms and biases have one block of memory; vector k lies at the place that
 * the plan gives the k-th vector of the list. */
static void place_vectors(model *m, const wanted_list *list, base_plan *plan,
                          void **place)
{
    for (size_t i = 0; i < list->n; i++)
        if (!list->items[i].cols) {
            void *p = base_plan_take(plan, (size_t)list->items[i].rows,
                                     base_dtype_bytes(m->be->acc));
            if (place)
                place[i] = p;
        }
}

static lori_status upload_vectors(model *m, const wanted_list *list,
                                  void **place, lori_error *err)
{
    base_plan count = {0};
    place_vectors(m, list, &count, NULL);
    void *device = m->vectors = m->be->alloc(m->be, count.used);
    unsigned char *host = aligned_alloc(64, count.used);
    lori_status st = LORI_OK;
    if (device && host) {
        base_plan plan = {.base = host};
        place_vectors(m, list, &plan, place);
        memset(host, 0, count.used);
        for (size_t i = 0; i < list->n; i++)
            if (place[i])
                to_acc(list->items[i].tensor, m->be->acc, place[i]);
        m->be->copy(m->be, device, host, count.used, BACKEND_TO_DEVICE);
        st = m->be->sync(m->be, err);
        plan = (base_plan){.base = device};
        place_vectors(m, list, &plan, place);
    } else {
        st = base_no_memory(err, count.used);
    }
    free(host);
    return st;
}

static lori_status open_all(model *m, const wanted_list *list, void **place,
                            lori_error *err)
{
    const model_config *c = &m->config;
    size_t i = 0;
    BASE_TRY(open_matrix(m, list->items[i++].tensor, &m->embed, err));
    m->norm = place[i++];
    m->head = m->embed;
    if (!c->tied) {
        m->head = NULL;
        BASE_TRY(open_matrix(m, list->items[i++].tensor, &m->head, err));
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        model_layer *layer = &m->layers[l];
        layer->norm1 = place[i++];
        layer->norm2 = place[i++];
        for (int r = 0; r < MODEL_ROLES; r++) {
            BASE_TRY(
                open_matrix(m, list->items[i++].tensor, &layer->w[r], err));
            if (model_linear_bias(c, r))
                layer->bias[r] = place[i++];
        }
    }
    return LORI_OK;
}

static lori_status load(model *m, const char *folder, wanted_list *list,
                        lori_error *err)
{
    BASE_TRY(model_config_load(folder, &m->config, err));
    BASE_TRY(format_store_open_folder(folder, "model", &m->store, err));
    BASE_TRY(list_wanted(&m->config, list, err));
    BASE_TRY(check_all(m, folder, list, err));
    m->layers = base_alloc((size_t)m->config.n_layers, sizeof *m->layers);
    void **place = base_alloc(list->n, sizeof *place);
    lori_status st;
    if (m->layers && place) {
        st = upload_vectors(m, list, place, err);
        if (!st)
            st = open_all(m, list, place, err);
    } else {
        st = base_no_memory(err, list->n * sizeof *place);
    }
    free(place);
    return st;
}

lori_status model_open(const char *folder, backend *be, model **out,
                       lori_error *err)
{
    *out = NULL;
    model *m = base_alloc(1, sizeof *m);
    if (!m)
        return base_no_memory(err, sizeof *m);
    m->be = be;
    wanted_list list = {0};
    lori_status st = load(m, folder, &list, err);
    free(list.items);
    if (st) {
        model_close(m);
        return st;
    }
    *out = m;
    return LORI_OK;
}

void model_close(model *m)
{
    if (!m)
        return;
    backend *be = m->be;
    for (int64_t l = 0; m->layers && l < m->config.n_layers; l++)
        for (int r = 0; r < MODEL_ROLES; r++)
            be->weight_close(be, m->layers[l].w[r]);
    free(m->layers);
    if (m->head != m->embed)
        be->weight_close(be, m->head);
    be->weight_close(be, m->embed);
    if (m->vectors)
        be->free(be, m->vectors);
    format_store_close(m->store);
    free(m);
}

const model_config *model_get_config(const model *m)
{
    return &m->config;
}

backend *model_get_backend(const model *m)
{
    return m->be;
}

base_dtype model_checkpoint_dtype(const model *m)
{
    return m->dtype;
}

void model_weight_bytes(const model *m, size_t *mapped, size_t *converted)
{
    *mapped = *converted = 0;
    base_dtype act = m->be->act;
    for (size_t i = 0; i < format_store_count(m->store); i++) {
        const format_tensor *t = format_store_at(m->store, i);
        if (t->dtype == act)
            *mapped += t->bytes;
        else
            *converted +=
                t->bytes / base_dtype_bytes(t->dtype) * base_dtype_bytes(act);
    }
}

/* Adds to *taken, unless the copy could exceed `most`. */
static void compact(model *m, backend_weight *w, int64_t rows, int64_t cols,
                    int64_t most, int64_t *taken)
{
    const int64_t bytes = rows * cols * (int64_t)base_dtype_bytes(m->be->act);
    if (bytes <= most - *taken)
        *taken += m->be->weight_compact(m->be, w);
}

int64_t model_compact(model *m, int64_t most)
{
    const model_config *c = &m->config;
    int64_t taken = 0;
    for (int64_t l = 0; l < c->n_layers; l++)
        for (int r = 0; r < MODEL_ROLES; r++) {
            int64_t out, in;
            model_linear_shape(c, r, &out, &in);
            compact(m, m->layers[l].w[r], out, in, most, &taken);
        }
    compact(m, m->head, c->vocab, c->d, most, &taken);
    return taken;
}
