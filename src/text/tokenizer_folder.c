/* tokenizer_folder.c - what a model folder says beside tokenizer.json: added
 * tokens and their flags, BOS, EOS, stop ids, names of special tokens. A
 * missing file says nothing. Includes base, format. Source: spec/text.md 1.1
 * (merge rule), 3; spec/hf.md 1.5, 4. */
#include <stdlib.h>

#include "text/text_i.h"

/* The named tokens, in the order in which transformers adds missing ones. */
static const char *const names[] = {"bos_token", "eos_token", "unk_token",
                                    "sep_token", "pad_token", "cls_token",
                                    "mask_token"};
enum { N_NAMES = sizeof names / sizeof *names };

typedef struct folder {
    text_tokenizer *tok;
    json_t *config; /* tokenizer_config.json or NULL */
    json_t *map;    /* special_tokens_map.json or NULL; overrides */
    char *config_path, *map_path;
    bool named_files; /* one of the two exists */
    size_t n_known;   /* added tokens before the named ones */
} folder;

/* *out is NULL when there is no such file. *path is freed by the caller. */
static lori_status load_optional(const char *dir, const char *name, char **path,
                                 json_t **out, lori_error *err)
{
    *out = NULL;
    *path = base_path_join(dir, name);
    if (!*path)
        return base_no_memory(err, strlen(dir) + strlen(name));
    if (!base_is_file(*path))
        return LORI_OK;
    BASE_TRY(format_json_load(*path, out, err));
    if (json_is_object(*out))
        return LORI_OK;
    json_decref(*out);
    *out = NULL;
    return base_fail(err, LORI_FORMAT, "%s: not a JSON object", *path);
}

/* ---- tokens ------------------------------------------------------------ */

/* A token in either form: "text", or {"content": "text", flags}. */
static lori_status read_token(const json_t *json, const char *file,
                              const char *key, bool special, text_added *out,
                              lori_error *err)
{
    const json_t *content =
        json_is_string(json) ? json : json_object_get(json, "content");
    *out = (text_added){.special = special};
    if (!json_is_string(content))
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' is neither a string nor an object with a "
                         "string 'content'",
                         file, key);
    if (json_is_object(json)) {
        BASE_TRY(
            format_get_bool(json, file, "special", false, &out->special, err));
        out->normalized = !out->special;
        BASE_TRY(format_get_bool(json, file, "normalized", false,
                                 &out->normalized, err));
        BASE_TRY(format_get_bool(json, file, "single_word", false,
                                 &out->single_word, err));
        BASE_TRY(
            format_get_bool(json, file, "lstrip", false, &out->lstrip, err));
        BASE_TRY(
            format_get_bool(json, file, "rstrip", false, &out->rstrip, err));
    }
    out->n = json_string_length(content);
    out->content = base_strndup(json_string_value(content), out->n);
    return out->content ? LORI_OK : base_no_memory(err, out->n);
}

/* The value of a named token: the map's when it overrides, else the config's.
 * NULL when absent or null. */
static const json_t *named(const folder *f, const char *name, const char **file)
{
    const json_t *value = f->map ? json_object_get(f->map, name) : NULL;
    *file = f->map_path;
    if (!value) {
        value = json_object_get(f->config, name);
        *file = f->config_path;
    }
    return json_is_null(value) ? NULL : value;
}

static bool same_content(const json_t *value, const text_added *token)
{
    const json_t *content =
        json_is_string(value) ? value : json_object_get(value, "content");
    return json_is_string(content) && json_string_length(content) == token->n &&
           memcmp(json_string_value(content), token->content, token->n) == 0;
}

/* "image_token" and the like: any other key that ends in _token. */
static bool is_other_name(const char *key, const json_t *value)
{
    size_t n = strlen(key);
    if (n < 6 || strcmp(key + n - 6, "_token") != 0)
        return false;
    for (int k = 0; k < N_NAMES; k++)
        if (strcmp(key, names[k]) == 0)
            return false;
    return json_is_string(value) ||
           json_is_string(json_object_get(value, "content"));
}

static bool is_named(const folder *f, const text_added *token)
{
    const char *file;
    for (int k = 0; k < N_NAMES; k++)
        if (same_content(named(f, names[k], &file), token))
            return true;
    for (void *iter = json_object_iter(f->config); iter;
         iter = json_object_iter_next(f->config, iter))
        if (is_other_name(json_object_iter_key(iter),
                          json_object_iter_value(iter)) &&
            same_content(json_object_iter_value(iter), token))
            return true;
    return false;
}

/* A member of added_tokens_decoder or added_tokens.json, by its id. */
typedef struct decoder_row {
    long long id;
    const char *key;
    const json_t *token;
} decoder_row;

static int compare_rows(const void *a, const void *b)
{
    const decoder_row *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static lori_status add_row(folder *f, const json_t *json, lori_error *err)
{
    text_added token;
    BASE_TRY(read_token(json, f->config_path, "added_tokens_decoder", false,
                        &token, err));
    if (is_named(f, &token))
        token.special = true;
    lori_status st =
        text_added_add(&f->tok->added, &f->tok->vocab, &token, err);
    free(token.content);
    return st;
}

/* The object's rows, sorted by id. `by_key`: the ids are the keys, else the
 * values. *rows is freed by the caller. */
static lori_status sorted_rows(json_t *object, bool by_key, const char *file,
                               decoder_row **rows, lori_error *err)
{
    size_t n = json_object_size(object), i = 0;
    *rows = base_alloc(n, sizeof **rows);
    if (!*rows)
        return base_no_memory(err, n * sizeof **rows);
    for (void *iter = json_object_iter(object); iter;
         iter = json_object_iter_next(object, iter)) {
        decoder_row *row = &(*rows)[i++];
        char *end = NULL;
        row->key = json_object_iter_key(iter);
        row->token = json_object_iter_value(iter);
        row->id = by_key ? strtoll(row->key, &end, 10)
                         : json_integer_value(row->token);
        if (by_key ? end == row->key || *end : !json_is_integer(row->token))
            return base_fail(err, LORI_FORMAT,
                             "%s: the id of '%s' is no number", file, row->key);
    }
    qsort(*rows, n, sizeof **rows, compare_rows);
    return LORI_OK;
}

/* tokenizer_config.json's flags win over tokenizer.json's; its ids are only
 * an order. */
static lori_status add_decoder(folder *f, json_t *decoder, lori_error *err)
{
    decoder_row *rows;
    lori_status st = sorted_rows(decoder, true, f->config_path, &rows, err);
    if (st != LORI_OK)
        st = base_prefix(err, st, "added_tokens_decoder");
    for (size_t i = 0; st == LORI_OK && i < json_object_size(decoder); i++)
        st = add_row(f, rows[i].token, err);
    free(rows);
    return st;
}

/* Whether transformers takes a token of added_tokens.json for special when it
 * reads the row; an object in tokenizer_config.json is not looked into yet. */
static bool is_listed(const folder *f, const text_added *token)
{
    static const char *const lists[] = {"additional_special_tokens",
                                        "extra_special_tokens"};
    const char *file;
    for (int k = 0; k < N_NAMES; k++) {
        const json_t *value = named(f, names[k], &file);
        if ((json_is_string(value) || file == f->map_path) &&
            same_content(value, token))
            return true;
    }
    for (int k = 0; k < 2; k++) {
        const json_t *list = named(f, lists[k], &file);
        for (size_t i = 0; i < json_array_size(list); i++)
            if (json_is_string(json_array_get(list, i)) &&
                same_content(json_array_get(list, i), token))
                return true;
    }
    return false;
}

/* One row of added_tokens.json. tokenizer.json's tokens count as rows too:
 * of equal ids theirs alone does; of equal texts the one with the larger id
 * comes last, so its flags stay, but what was special remains so. */
static lori_status add_legacy_row(folder *f, const decoder_row *row,
                                  size_t n_file, lori_error *err)
{
    text_added_set *set = &f->tok->added;
    text_added token = {.n = strlen(row->key)};
    for (size_t i = 0; i < n_file; i++)
        if (set->token[i].id == row->id)
            return LORI_OK;
    token.content = base_strdup(row->key);
    if (!token.content)
        return base_no_memory(err, token.n);
    token.normalized = !is_listed(f, &token);
    token.special = !token.normalized || is_named(f, &token);
    int32_t old = text_added_find(set, token.content, token.n);
    lori_status st = LORI_OK;
    if (old >= 0 && (size_t)old < n_file && set->token[old].id > row->id)
        set->token[old].special = set->token[old].special || token.special;
    else
        st = text_added_add(set, &f->tok->vocab, &token, err);
    free(token.content);
    return st;
}

/* Folders without added_tokens_decoder: added_tokens.json is {"text": id},
 * and a token of tokenizer.json that has a name becomes special. */
static lori_status add_legacy(folder *f, const char *dir, lori_error *err)
{
    json_t *json;
    char *path;
    text_added_set *set = &f->tok->added;
    size_t before = set->n;
    decoder_row *rows = NULL;
    lori_status st = load_optional(dir, "added_tokens.json", &path, &json, err);
    if (st == LORI_OK && json)
        st = sorted_rows(json, false, path, &rows, err);
    for (size_t i = 0; st == LORI_OK && i < json_object_size(json); i++)
        st = add_legacy_row(f, &rows[i], before, err);
    for (size_t i = 0; i < before; i++)
        set->token[i].special =
            set->token[i].special || is_named(f, &set->token[i]);
    json_decref(json);
    free(rows);
    free(path);
    return st;
}

/* A named or extra special token that was no added token before (index under
 * n_known); of several with the same text the last one's flags stay. One of
 * the lists is special only when it says so, or is a plain string. */
static lori_status add_missing(folder *f, const json_t *value, const char *file,
                               const char *key, bool is_name, lori_error *err)
{
    text_added token;
    lori_status st = LORI_OK;
    BASE_TRY(read_token(value, file, key, json_is_string(value), &token, err));
    token.special = token.special || is_name || is_named(f, &token);
    int32_t old = text_added_find(&f->tok->added, token.content, token.n);
    if (old < 0 || (size_t)old >= f->n_known)
        st = text_added_add(&f->tok->added, &f->tok->vocab, &token, err);
    free(token.content);
    return st;
}

static lori_status add_list(folder *f, const char *key, lori_error *err)
{
    const char *file;
    const json_t *list = named(f, key, &file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(
            add_missing(f, json_array_get(list, i), file, key, false, err));
    json_t *object = json_object_get(f->config, key);
    if (json_is_object(list) && list == object)
        for (void *iter = json_object_iter(object); iter;
             iter = json_object_iter_next(object, iter))
            BASE_TRY(add_missing(f, json_object_iter_value(iter), file, key,
                                 true, err));
    return LORI_OK;
}

static lori_status add_other_names(folder *f, lori_error *err)
{
    for (void *iter = json_object_iter(f->config); iter;
         iter = json_object_iter_next(f->config, iter)) {
        const char *key = json_object_iter_key(iter);
        const json_t *value = json_object_iter_value(iter);
        if (is_other_name(key, value))
            BASE_TRY(add_missing(f, value, f->config_path, key, true, err));
    }
    return LORI_OK;
}

static lori_status add_tokens(folder *f, const char *dir, lori_error *err)
{
    json_t *decoder = json_object_get(f->config, "added_tokens_decoder");
    if (json_is_object(decoder)) {
        json_decref(f->map); /* not read when the decoder is there */
        f->map = NULL;
        BASE_TRY(add_decoder(f, decoder, err));
    } else {
        BASE_TRY(add_legacy(f, dir, err));
    }
    f->n_known = f->tok->added.n;
    for (int k = 0; k < N_NAMES; k++) {
        const char *file;
        const json_t *value = named(f, names[k], &file);
        if (value)
            BASE_TRY(add_missing(f, value, file, names[k], true, err));
    }
    BASE_TRY(add_other_names(f, err));
    BASE_TRY(add_list(f, "additional_special_tokens", err));
    return add_list(f, "extra_special_tokens", err);
}

/* ---- ids --------------------------------------------------------------- */

/* The id of a named token, -1 when it is not set or not a token. */
static int32_t named_id(const folder *f, const char *name)
{
    const char *file;
    const json_t *value = named(f, name, &file);
    const json_t *content =
        json_is_string(value) ? value : json_object_get(value, "content");
    const char *s = json_string_value(content);
    return s ? text_token_id(f->tok, s) : -1;
}

/* An id, or the first of a list of ids. */
static int32_t first_id(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    json_int_t id = json_integer_value(value);
    return json_is_integer(value) && id >= 0 && id <= TEXT_MAX_ID ? (int32_t)id
                                                                  : -1;
}

static lori_status add_stop(text_tokenizer *tok, const json_t *value,
                            const char *file, lori_error *err)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id > INT32_MAX)
        return base_fail(err, LORI_FORMAT,
                         "%s: eos_token_id is neither an id nor a list of ids",
                         file);
    int32_t *stop = base_resize(tok->stop, tok->n_stops + 1, sizeof *stop);
    if (!stop)
        return base_no_memory(err, (tok->n_stops + 1) * sizeof *stop);
    tok->stop = stop;
    tok->stop[tok->n_stops++] = (int32_t)id;
    return LORI_OK;
}

static lori_status add_stops(text_tokenizer *tok, const json_t *json,
                             const char *file, lori_error *err)
{
    const json_t *value = json_object_get(json, "eos_token_id");
    if (!value || json_is_null(value))
        return LORI_OK;
    if (!json_is_array(value))
        return add_stop(tok, value, file, err);
    for (size_t i = 0; i < json_array_size(value); i++)
        BASE_TRY(add_stop(tok, json_array_get(value, i), file, err));
    return LORI_OK;
}

static lori_status load_ids(folder *f, const char *dir, lori_error *err)
{
    text_tokenizer *tok = f->tok;
    json_t *generation = NULL, *model = NULL;
    char *generation_path = NULL, *model_path = NULL;
    lori_status st = load_optional(dir, "generation_config.json",
                                   &generation_path, &generation, err);
    if (st == LORI_OK)
        st = load_optional(dir, "config.json", &model_path, &model, err);
    tok->bos = named_id(f, "bos_token");
    tok->eos = named_id(f, "eos_token");
    if (!f->named_files) { /* nobody named them: the model's own ids */
        tok->bos = first_id(model, "bos_token_id");
        tok->eos = first_id(model, "eos_token_id");
    }
    if (st == LORI_OK && generation)
        st = add_stops(tok, generation, generation_path, err);
    else if (st == LORI_OK && model)
        st = add_stops(tok, model, model_path, err);
    if (st == LORI_OK && !generation && tok->n_stops == 0 && tok->eos >= 0) {
        json_t *eos = json_integer(tok->eos);
        st = eos ? add_stop(tok, eos, tok->file, err) : base_no_memory(err, 0);
        json_decref(eos);
    }
    json_decref(generation);
    json_decref(model);
    free(generation_path);
    free(model_path);
    return st;
}

/* ---- chat templates ---------------------------------------------------- */

/* The named tokens' texts, which templates use as variables. Without a file
 * that names them they are the model's BOS and EOS. */
static lori_status keep_names(folder *f, lori_error *err)
{
    text_tokenizer *tok = f->tok;
    tok->named = json_object();
    for (int k = 0; k < N_NAMES; k++) {
        const char *file;
        const json_t *value = named(f, names[k], &file);
        const json_t *content =
            json_is_string(value) ? value : json_object_get(value, "content");
        if (content)
            json_object_set_new(tok->named, names[k], json_deep_copy(content));
    }
    int32_t id[2] = {tok->bos, tok->eos};
    for (int k = 0; k < 2 && !f->named_files; k++)
        if (text_token(tok, id[k]))
            json_object_set_new(tok->named, names[k],
                                json_string(text_token(tok, id[k])));
    return tok->named ? LORI_OK : base_no_memory(err, 0);
}

lori_status text_folder_load(text_tokenizer *tok, const char *dir,
                             lori_error *err)
{
    folder f = {.tok = tok};
    if (!dir)
        return LORI_OK;
    lori_status st = load_optional(dir, "tokenizer_config.json", &f.config_path,
                                   &f.config, err);
    if (st == LORI_OK)
        st = load_optional(dir, "special_tokens_map.json", &f.map_path, &f.map,
                           err);
    f.named_files = f.config || f.map;
    if (st == LORI_OK)
        st = add_tokens(&f, dir, err);
    if (st == LORI_OK)
        st = load_ids(&f, dir, err);
    if (st == LORI_OK)
        st = keep_names(&f, err);
    if (st == LORI_OK)
        st = text_chat_find(tok, dir, f.config, f.config_path, err);
    json_decref(f.config);
    json_decref(f.map);
    free(f.config_path);
    free(f.map_path);
    return st;
}
