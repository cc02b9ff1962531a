/* import_write.c - a vocabulary becomes tokenizer.json and
 * tokenizer_config.json: merges found from scores or ranks, the pipeline, the
 * template of BOS and EOS. Includes format.
 * Source: spec/gguf.md 5.1-5.3; spec/text.md 1; spec/hf.md 4. */
#include <stdlib.h>

#include "job/import_i.h"

#define MARK "\xE2\x96\x81" /* U+2581 */

void import_vocab_free(import_vocab *v)
{
    for (size_t i = 0; i < v->n_texts; i++)
        free(v->texts[i]);
    free(v->texts);
    free(v->token);
    json_decref(v->merges);
    json_decref(v->normalizer);
    json_decref(v->pre_tokenizer);
    json_decref(v->decoder);
    *v = (import_vocab){0};
}

bool import_keep_text(import_vocab *v, char *text)
{
    bool grow = v->n_texts % 1024 == 0;
    char **texts = text && grow
                       ? base_resize(v->texts, v->n_texts + 1024, sizeof *texts)
                       : v->texts;
    if (!text || !texts) {
        free(text);
        return false;
    }
    v->texts = texts;
    v->texts[v->n_texts++] = text;
    return true;
}

/* ---- merges ------------------------------------------------------------ */

typedef struct merge {
    double score; /* of the token that it makes */
    const import_token *token;
    size_t left; /* bytes of the left side */
    uint32_t left_id, right_id;
    uint32_t left_n, right_n; /* characters */
    uint32_t id;
} merge;

/* Places in vocabulary order, then by the ids of both sides. */
static int by_place(const merge *x, const merge *y)
{
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->left_id != y->left_id)
        return x->left_id < y->left_id ? -1 : 1;
    return x->right_id < y->right_id ? -1 : x->right_id > y->right_id;
}

static int by_score(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->left_n != y->left_n)
        return x->left_n > y->left_n ? -1 : 1;
    if (x->right_n != y->right_n)
        return x->right_n > y->right_n ? -1 : 1;
    return by_place(x, y);
}

static int by_rank(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return by_place(x, y);
}

typedef struct merge_list {
    merge *m;
    size_t n, cap;
} merge_list;

static bool add_merge(merge_list *list, merge m)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 4096;
        merge *grown = base_resize(list->m, cap, sizeof *grown);
        if (!grown)
            return false;
        list->m = grown;
        list->cap = cap;
    }
    list->m[list->n++] = m;
    return true;
}

static bool is_start(char c)
{
    return ((unsigned char)c & 0xC0) != 0x80;
}

static uint32_t characters(const char *s, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += is_start(s[i]);
    return count;
}

/* {text: id} of the normal tokens. */
static json_t *normal_tokens(const import_vocab *v)
{
    json_t *of_text = json_object();
    for (size_t i = 0; of_text && i < v->n; i++)
        if (v->token[i].kind == IMPORT_NORMAL)
            json_object_setn_new_nocheck(of_text, v->token[i].text,
                                         v->token[i].n,
                                         json_integer((json_int_t)i));
    return of_text;
}

static bool split_token(const import_vocab *v, const json_t *of_text, size_t id,
                        uint32_t n_chars, merge_list *list)
{
    const import_token *t = &v->token[id];
    uint32_t left_n = 0;
    for (size_t at = 1; at < t->n; at++) {
        if (!is_start(t->text[at]))
            continue;
        left_n++;
        const json_t *left = json_object_getn(of_text, t->text, at);
        const json_t *right =
            left ? json_object_getn(of_text, t->text + at, t->n - at) : NULL;
        if (right &&
            !add_merge(list,
                       (merge){.score = t->score,
                               .token = t,
                               .left = at,
                               .left_id = (uint32_t)json_integer_value(left),
                               .right_id = (uint32_t)json_integer_value(right),
                               .left_n = left_n,
                               .right_n = n_chars - left_n,
                               .id = (uint32_t)id}))
            return false;
    }
    return true;
}

lori_status import_find_merges(import_vocab *v, bool ranks, lori_error *err)
{
    merge_list list = {0};
    json_t *of_text = normal_tokens(v);
    v->merges = json_array();
    bool good = of_text && v->merges;
    for (size_t i = 0; good && i < v->n; i++) {
        const import_token *t = &v->token[i];
        if (t->kind == IMPORT_NORMAL)
            good = split_token(v, of_text, i, characters(t->text, t->n), &list);
    }
    if (list.n)
        qsort(list.m, list.n, sizeof *list.m, ranks ? by_rank : by_score);
    for (size_t i = 0; good && i < list.n; i++) {
        const merge *m = &list.m[i];
        json_t *pair =
            json_pack("[s%s%]", m->token->text, m->left,
                      m->token->text + m->left, m->token->n - m->left);
        good = pair && json_array_append_new(v->merges, pair) == 0;
    }
    free(list.m);
    json_decref(of_text);
    return good ? LORI_OK : base_no_memory(err, v->n * 64);
}

/* ---- pipelines --------------------------------------------------------- */

lori_status import_spm_pipeline(import_vocab *v, bool prefix, lori_error *err)
{
    json_t *marks = json_pack("{sss{ss}ss}", "type", "Replace", "pattern",
                              "String", " ", "content", MARK);
    v->spm = true;
    v->normalizer =
        prefix ? json_pack("{sss[{ssss}o]}", "type", "Sequence", "normalizers",
                           "type", "Prepend", "prepend", MARK, marks)
               : marks;
    v->decoder =
        json_pack("{sss[{sss{ss}ss}{ss}{ss}]}", "type", "Sequence", "decoders",
                  "type", "Replace", "pattern", "String", MARK, "content", " ",
                  "type", "ByteFallback", "type", "Fuse");
    if (v->decoder && prefix)
        json_array_append_new(json_object_get(v->decoder, "decoders"),
                              json_pack("{sssssisi}", "type", "Strip",
                                        "content", " ", "start", 1, "stop", 0));
    return v->normalizer && v->decoder ? LORI_OK : base_no_memory(err, 512);
}

lori_status import_byte_pipeline(import_vocab *v, bool nfc, bool digits,
                                 const char *split, lori_error *err)
{
    json_t *bytes =
        json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 0,
                  "trim_offsets", 1, "use_regex", split == NULL);
    json_t *first = NULL;
    if (digits)
        first = json_pack("{sssb}", "type", "Digits", "individual_digits", 1);
    else if (split)
        first = json_pack("{sss{ss}sssb}", "type", "Split", "pattern", "Regex",
                          split, "behavior", "Isolated", "invert", 0);
    v->pre_tokenizer = first ? json_pack("{sss[oo]}", "type", "Sequence",
                                         "pretokenizers", first, bytes)
                             : bytes;
    if (nfc)
        v->normalizer = json_pack("{ss}", "type", "NFC");
    v->decoder =
        json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 1,
                  "trim_offsets", 1, "use_regex", 1);
    return v->pre_tokenizer && v->decoder && (!nfc || v->normalizer)
               ? LORI_OK
               : base_no_memory(err, 512);
}

/* ---- files ------------------------------------------------------------- */

/* {"token": id} and the added tokens. Texts are unique UTF-8 without NUL, as
 * JSON keys must be. */
static lori_status vocab_json(const import_vocab *v, json_t *vocab,
                              json_t *added, lori_error *err)
{
    for (size_t i = 0; i < v->n; i++) {
        const import_token *t = &v->token[i];
        if (t->kind == IMPORT_UNUSED)
            continue;
        if (t->n == 0 || memchr(t->text, 0, t->n))
            return base_fail(err, LORI_FORMAT,
                             "token %zu is empty or holds a NUL", i);
        if (json_object_getn(vocab, t->text, t->n))
            return base_fail(err, LORI_FORMAT,
                             "token %zu repeats the text of an earlier one", i);
        if (json_object_setn_new(vocab, t->text, t->n,
                                 json_integer((json_int_t)i)))
            return base_fail(err, LORI_FORMAT, "token %zu is not UTF-8", i);
        bool unk = v->spm && (int64_t)i == v->unk;
        if (t->kind != IMPORT_CONTROL && t->kind != IMPORT_USER_DEFINED && !unk)
            continue;
        json_t *row = json_pack("{sIss%sbsbsbsbsb}", "id", (json_int_t)i,
                                "content", t->text, t->n, "single_word", 0,
                                "lstrip", 0, "rstrip", 0, "normalized", 0,
                                "special", t->kind != IMPORT_USER_DEFINED);
        if (json_array_append_new(added, row))
            return base_no_memory(err, 64);
    }
    return LORI_OK;
}

static json_t *text_of(const import_vocab *v, int64_t id)
{
    return json_stringn(v->token[id].text, v->token[id].n);
}

static void add_item(json_t *list, json_t *special, const char *sequence,
                     int type)
{
    json_array_append_new(list, special
                                    ? json_pack("{s{sosi}}", "SpecialToken",
                                                "id", special, "type_id", type)
                                    : json_pack("{s{sssi}}", "Sequence", "id",
                                                sequence, "type_id", type));
}

static void describe(const import_vocab *v, json_t *specials, int64_t id)
{
    const import_token *t = &v->token[id];
    json_object_setn_new(specials, t->text, t->n,
                         json_pack("{sos[I]s[o]}", "id", text_of(v, id), "ids",
                                   (json_int_t)id, "tokens", text_of(v, id)));
}

/* [bos] A [eos], or null when neither is added. */
static json_t *post_processor_json(const import_vocab *v)
{
    if (!v->add_bos && !v->add_eos)
        return json_null();
    json_t *list[2] = {json_array(), json_array()}; /* single, pair */
    json_t *specials = json_object();
    for (int which = 0; which < 2; which++) {
        for (int s = 0; s <= which; s++) {
            if (v->add_bos)
                add_item(list[which], text_of(v, v->bos), NULL, s);
            add_item(list[which], NULL, s ? "B" : "A", s);
            if (v->add_eos)
                add_item(list[which], text_of(v, v->eos), NULL, s);
        }
    }
    if (v->add_bos)
        describe(v, specials, v->bos);
    if (v->add_eos)
        describe(v, specials, v->eos);
    return json_pack("{sssososo}", "type", "TemplateProcessing", "single",
                     list[0], "pair", list[1], "special_tokens", specials);
}

static json_t *or_null(json_t *value)
{
    return value ? json_incref(value) : json_null();
}

static lori_status write_tokenizer(const import_vocab *v, const char *folder,
                                   lori_error *err)
{
    json_t *vocab = json_object(), *added = json_array(), *file = NULL;
    lori_status st = vocab && added ? LORI_OK : base_no_memory(err, 64);
    if (!st)
        st = vocab_json(v, vocab, added, err);
    if (!st) {
        json_t *bpe = json_pack(
            "{sssnsosnsnsbsbsbsOsO}", "type", "BPE", "dropout", "unk_token",
            v->spm ? text_of(v, v->unk) : json_null(),
            "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
            (int)v->spm, "byte_fallback", (int)v->spm, "ignore_merges",
            (int)v->ignore_merges, "vocab", vocab, "merges", v->merges);
        file = json_pack("{sssnsnsOsososososo}", "version", "1.0", "truncation",
                         "padding", "added_tokens", added, "normalizer",
                         or_null(v->normalizer), "pre_tokenizer",
                         or_null(v->pre_tokenizer), "post_processor",
                         post_processor_json(v), "decoder", or_null(v->decoder),
                         "model", bpe);
        st = file ? job_write_json(folder, "tokenizer.json", file,
                                   FORMAT_JSON_INDENT, false, err)
                  : base_no_memory(err, 1 << 20);
    }
    json_decref(file);
    json_decref(vocab);
    json_decref(added);
    return st;
}

static lori_status write_config(const import_vocab *v, const char *folder,
                                lori_error *err)
{
    json_t *c =
        json_pack("{sssb}", "tokenizer_class", "PreTrainedTokenizerFast",
                  "clean_up_tokenization_spaces", 0);
    if (!c)
        return base_no_memory(err, 256);
    if (v->context)
        json_object_set_new(c, "model_max_length", json_integer(v->context));
    const struct {
        const char *name;
        int64_t id;
    } named[] = {{"bos_token", v->bos},
                 {"eos_token", v->eos},
                 {"unk_token", v->unk},
                 {"pad_token", v->pad}};
    for (size_t i = 0; i < 4; i++)
        if (named[i].id >= 0)
            json_object_set_new(c, named[i].name, text_of(v, named[i].id));
    lori_status st =
        job_write_json(folder, "tokenizer_config.json", c,
                       FORMAT_JSON_SORT | FORMAT_JSON_INDENT, true, err);
    json_decref(c);
    return st;
}

/* What was written must be a tokenizer: that finds merges without tokens. */
static lori_status check_result(const char *folder, lori_error *err)
{
    text_tokenizer *tok;
    lori_error why = {0};
    lori_status st = text_tokenizer_open(folder, &tok, &why);
    text_tokenizer_close(tok);
    const char *fact = strstr(why.message, "tokenizer.json: ");
    return st == LORI_OK
               ? st
               : base_fail(err, st, "the vocabulary is not usable: %s",
                           fact ? fact + 16 : why.message);
}

lori_status import_write(const import_vocab *v, const char *folder,
                         lori_error *err)
{
    const int64_t ids[] = {v->bos, v->eos, v->unk, v->pad};
    for (size_t i = 0; i < 4; i++)
        if (ids[i] >= (int64_t)v->n)
            return base_fail(err, LORI_FORMAT,
                             "a special token has the id %lld, but there are "
                             "%zu tokens",
                             (long long)ids[i], v->n);
    if ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0))
        return base_fail(err, LORI_FORMAT,
                         "BOS or EOS is to be added, but its token id is "
                         "missing");
    if (v->spm && v->unk < 0)
        return base_fail(err, LORI_FORMAT, "there is no unknown token");
    BASE_TRY(write_tokenizer(v, folder, err));
    BASE_TRY(write_config(v, folder, err));
    return check_result(folder, err);
}
