/* session.c - a base model, its tokenizer, its adapters and the engine that
 * runs them, opened once for generation and scoring. */
#include "job/session_i.h"

#include <stdlib.h>

/* ---- adapters -------------------------------------------------------- */

static bool name_is_valid(const char *name)
{
    static const char more[] = "._-";
    if (!name || !*name || !strcmp(name, "none") || strlen(name) > 128)
        return false;
    for (const char *c = name; *c; c++) {
        bool word = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                    (*c >= '0' && *c <= '9');
        if (!word && (c == name || !strchr(more, *c)))
            return false;
    }
    return true;
}

/* Takes the folder's adapter into the list; `name` was checked. */
static lori_status open_adapter(lori_session *s, const char *name,
                                const char *folder, const lori_ui *ui,
                                lori_error *err)
{
    size_t n = (size_t)s->n_adapters;
    session_adapter *grown = base_resize(s->adapters, n + 1, sizeof *grown);
    if (!grown)
        return base_no_memory(err, (n + 1) * sizeof *grown);
    s->adapters = grown;
    adapter *ad = NULL;
    BASE_TRY(job_read_adapter(s->hub_cache, folder, &ad, err));
    session_adapter *a = &s->adapters[n];
    *a = (session_adapter){
        .folder = base_strdup(folder), .name = base_strdup(name), .key = n + 1};
    lori_status st = a->name && a->folder
                         ? model_adapter_new(s->model, ad, &a->ma, err)
                         : base_no_memory(err, strlen(name));
    if (!st && ad->n_extras)
        base_log(ui, LORI_LOG_INFO,
                 "%s: embedding rows equal the base's and are not needed",
                 folder);
    adapter_free(ad);
    if (st) {
        free(a->folder);
        free(a->name);
        return base_prefix(err, st, "%s", folder);
    }
    s->n_adapters++;
    return LORI_OK;
}

lori_status job_session_add_adapter(lori_session *s, const char *name,
                                    const char *folder, const lori_ui *ui,
                                    lori_error *err)
{
    BASE_TRY(job_need(folder, "an adapter folder", err));
    if (!name_is_valid(name))
        return base_fail(err, LORI_INVALID,
                         "adapter name '%s': at most 128 letters, digits, "
                         "'.', '_' and '-', a letter or digit first, and not "
                         "'none'",
                         name ? name : "");
    for (int64_t i = 0; i < s->n_adapters; i++)
        if (!strcmp(s->adapters[i].name, name))
            return base_fail(err, LORI_INVALID,
                             "there is an adapter '%s' already; choose another "
                             "name",
                             name);
    return open_adapter(s, name, folder, ui, err);
}

const char *job_session_adapter_name(const lori_session *s, int64_t index)
{
    return index >= 0 && index < s->n_adapters ? s->adapters[index].name : NULL;
}

/* "; did you mean 'x'?", or the names there are. */
static lori_status no_adapter(const lori_session *s, const char *name,
                              lori_error *err)
{
    const char **names = base_alloc((size_t)s->n_adapters + 1, sizeof *names);
    if (!names)
        return base_no_memory(err, (size_t)s->n_adapters * sizeof *names);
    size_t n = 0;
    names[n++] = "none";
    for (int64_t i = 0; i < s->n_adapters; i++)
        if (*s->adapters[i].name)
            names[n++] = s->adapters[i].name;
    const char *near = base_nearest(name, names, n);
    base_str list = {0};
    for (size_t i = 0; i < n; i++)
        base_str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    if (near)
        base_fail(err, LORI_NOT_FOUND,
                  "no adapter '%s' is open; did you mean '%s'?", name, near);
    else
        base_fail(err, LORI_NOT_FOUND, "no adapter '%s' is open; there are: %s",
                  name, list.s ? list.s : "");
    base_str_free(&list);
    free(names);
    return LORI_NOT_FOUND;
}

lori_status session_find_adapter(const lori_session *s, const char *name,
                                 session_adapter *out, lori_error *err)
{
    *out = (session_adapter){0};
    if (name && !strcmp(name, "none"))
        return LORI_OK;
    for (int64_t i = 0; i < s->n_adapters; i++)
        if (!strcmp(s->adapters[i].name, name ? name : "")) {
            *out = s->adapters[i];
            return LORI_OK;
        }
    return name ? no_adapter(s, name, err) : LORI_OK;
}

/* ---- open, close ----------------------------------------------------- */

static lori_status open_base(lori_session *s, const lori_session_options *o,
                             const lori_ui *ui, lori_error *err)
{
    backend_options open = {.name = "cpu",
                            .dtype = s->dtype,
                            .n_threads = o->n_threads,
                            .isa = o->isa};
    infer_limits limits = {.max_batch = o->max_batch,
                           .cache_bytes = o->cache_bytes,
                           .compact_bytes = o->compact_bytes,
                           .draft_tokens = o->draft_tokens};
    BASE_TRY(backend_open(&open, &s->be, err));
    BASE_TRY(model_open(s->folder, s->be, &s->model, err));
    BASE_TRY(text_tokenizer_open(s->folder, &s->tok, err));
    /* A folder without a template, or with a broken one, still completes plain
     * prompts; a template that somebody asked for must be there. */
    s->chat_status =
        text_chat_open(s->tok, o->chat_template, &s->chat, &s->chat_error);
    if (s->chat_status && o->chat_template)
        return base_fail(err, s->chat_status, "%s", s->chat_error.message);
    BASE_TRY(session_defaults_load(s->folder, &s->defaults, ui, err));
    return infer_engine_new(s->model, &limits, &s->engine, err);
}

static lori_status open_parts(lori_session *s, const lori_session_options *o,
                              const lori_ui *ui, lori_error *err)
{
    if (o->hub_cache && !(s->hub_cache = base_strdup(o->hub_cache)))
        return base_no_memory(err, strlen(o->hub_cache));
    if (o->chat_template && !(s->chat_template = base_strdup(o->chat_template)))
        return base_no_memory(err, strlen(o->chat_template));
    BASE_TRY(hub_find(o->hub_cache, o->model, HUB_WEIGHTS, &s->folder, err));
    BASE_TRY(open_base(s, o, ui, err));
    if (o->adapter)
        BASE_TRY(open_adapter(s, "", o->adapter, ui, err));
    for (int64_t i = 0; i < o->n_adapters; i++)
        BASE_TRY(job_session_add_adapter(s, o->adapters[i].name,
                                         o->adapters[i].folder, ui, err));
    return LORI_OK;
}

lori_status job_session_open(const lori_session_options *o, const lori_ui *ui,
                             lori_session **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(job_need(o->model, "a model folder", err));
    if (o->max_batch < 0 || o->cache_bytes < 0)
        return base_fail(err, LORI_INVALID,
                         "max_batch and cache_bytes cannot be negative");
    if (o->compact_bytes < -1)
        return base_fail(err, LORI_INVALID,
                         "compact_bytes is -1 (none), 0 (half of the free "
                         "memory) or the most bytes for it");
    if (o->draft_tokens < -1 || o->draft_tokens > INFER_DRAFT)
        return base_fail(err, LORI_INVALID,
                         "draft_tokens is -1 (none), 0 (as many as pay) or 1 "
                         "to %d",
                         INFER_DRAFT);
    lori_session *s = base_alloc(1, sizeof *s);
    if (!s)
        return base_no_memory(err, sizeof *s);
    s->dtype = job_dtype(o->dtype, BASE_BF16);
    s->max_batch = o->max_batch;
    s->cache_bytes = o->cache_bytes;
    lori_status st = open_parts(s, o, ui, err);
    if (st) {
        job_session_close(s);
        return st;
    }
    *out = s;
    return LORI_OK;
}

void job_session_close(lori_session *s)
{
    if (!s)
        return;
    infer_engine_free(s->engine);
    for (int64_t i = 0; i < s->n_adapters; i++) {
        model_adapter_free(s->adapters[i].ma);
        free(s->adapters[i].folder);
        free(s->adapters[i].name);
    }
    free(s->adapters);
    free(s->hub_cache);
    free(s->chat_template);
    text_chat_close(s->chat);
    text_tokenizer_close(s->tok);
    model_close(s->model);
    backend_close(s->be);
    free(s->folder);
    free(s);
}

int64_t job_session_context(const lori_session *s)
{
    return infer_context(s->engine);
}
