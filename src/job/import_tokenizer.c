/* import_tokenizer.c - a GGUF vocabulary of kind "gpt2" (byte-level BPE)
 * becomes tokenizer.json, tokenizer_config.json and chat_template.jinja.
 * `tokenizer.ggml.pre` names a pipeline that is not in the file; the table
 * here holds those that are known exactly, any other name is refused, never
 * guessed. Source: spec/gguf.md 5.1, 5.2, 5.4; spec/text.md 1.7. */
#include "job/job_i.h"

#include <stdlib.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define R_L3(digits)                                                           \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                      \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define R_O200K(tail, digits)                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail                          \
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail "|" digits              \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

typedef struct pipeline {
    const char *names; /* " name name " */
    bool nfc, digits, ignore_merges;
    const char *split; /* NULL: the GPT-2 pattern inside ByteLevel */
    bool bos;          /* add_bos_token when the file does not say */
} pipeline;

static const pipeline pipelines[] = {
    {" gpt-2 phi-2 mpt olmo jais gigachat exaone4 trillion granite-docling ",
     false, false, false, NULL, false},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b ", false,
     true, false, NULL, false},
    {" llama-bpe llama3 llama-v3 falcon3 pixtral falcon-h1 midm-2.0 lfm2 ",
     false, false, true, R_L3("\\p{N}{1,3}"), true},
    {" dbrx smaug-bpe chatglm-bpe ", false, false, false, R_L3("\\p{N}{1,3}"),
     false},
    {" glm4 ", false, false, true, R_L3("\\p{N}{1,3}"), false},
    {" qwen2 deepseek-r1-qwen megrez ", true, false, false, R_L3("\\p{N}"),
     false},
    {" stablelm2 hunyuan ", false, false, false, R_L3("\\p{N}"), false},
    {" tekken ", false, false, true, R_O200K("", "\\p{N}"), true},
    {" gpt-4o llama4 kanana2 ", false, false, false,
     R_O200K(CONTRACTIONS "?", "\\p{N}{1,3}"), false},
};

static const pipeline *find_pipeline(const char *pre)
{
    char word[64];
    int n = snprintf(word, sizeof word, " %s ", pre);
    if (n < 3 || (size_t)n >= sizeof word || strchr(pre, ' '))
        return NULL;
    for (size_t i = 0; i < sizeof pipelines / sizeof *pipelines; i++)
        if (strstr(pipelines[i].names, word))
            return &pipelines[i];
    return NULL;
}

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };

typedef struct vocabulary {
    size_t n;
    const char *const *token;
    const size_t *length;
    const int32_t *type; /* NULL: all normal */
    size_t n_merges;
    const char *const *merge;
    const size_t *merge_length;
    const pipeline *pipe;
    int64_t bos, eos, unk, pad;
    bool add_bos, add_eos;
} vocabulary;

lori_status import_token_id(const format_gguf *g, const char *key,
                            int64_t vocab, int64_t *id, lori_error *err)
{
    char name[96];
    snprintf(name, sizeof name, "tokenizer.ggml.%s", key);
    *id = -1;
    return format_gguf_i64(g, name, false, 0, vocab - 1, id, err);
}

static lori_status read_kind(const format_gguf *g, vocabulary *v,
                             lori_error *err)
{
    const char *kind = NULL, *pre = NULL;
    size_t n = 0;
    BASE_TRY(format_gguf_str(g, "tokenizer.ggml.model", true, &kind, &n, err));
    if (strcmp(kind, "gpt2") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "tokenizer.ggml.model '%s' cannot be imported (known: "
                         "gpt2, byte-level BPE)",
                         kind);
    BASE_TRY(format_gguf_str(g, "tokenizer.ggml.pre", true, &pre, &n, err));
    v->pipe = find_pipeline(pre);
    if (!v->pipe)
        return base_fail(err, LORI_UNSUPPORTED,
                         "tokenizer.ggml.pre '%s' names a pre-tokenizer that "
                         "is not known",
                         pre);
    v->add_bos = v->pipe->bos;
    BASE_TRY(format_gguf_bool(g, "tokenizer.ggml.add_bos_token", false,
                              &v->add_bos, err));
    return format_gguf_bool(g, "tokenizer.ggml.add_eos_token", false,
                            &v->add_eos, err);
}

static lori_status read_vocabulary(const format_gguf *g, int64_t vocab,
                                   vocabulary *v, lori_error *err)
{
    BASE_TRY(read_kind(g, v, err));
    BASE_TRY(format_gguf_strings(g, "tokenizer.ggml.tokens", true, &v->n,
                                 &v->token, &v->length, err));
    if ((int64_t)v->n != vocab)
        return base_fail(err, LORI_MISMATCH,
                         "tokenizer.ggml.tokens has %zu entries, the "
                         "embedding %lld rows",
                         v->n, (long long)vocab);
    size_t types = v->n;
    BASE_TRY(format_gguf_i32s(g, "tokenizer.ggml.token_type", false, &types,
                              &v->type, err));
    if (v->type && types != v->n)
        return base_fail(err, LORI_MISMATCH,
                         "tokenizer.ggml.token_type has %zu entries for %zu "
                         "tokens",
                         types, v->n);
    BASE_TRY(format_gguf_strings(g, "tokenizer.ggml.merges", true, &v->n_merges,
                                 &v->merge, &v->merge_length, err));
    BASE_TRY(import_token_id(g, "bos_token_id", vocab, &v->bos, err));
    BASE_TRY(import_token_id(g, "eos_token_id", vocab, &v->eos, err));
    BASE_TRY(import_token_id(g, "unknown_token_id", vocab, &v->unk, err));
    BASE_TRY(import_token_id(g, "padding_token_id", vocab, &v->pad, err));
    if ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0))
        return base_fail(err, LORI_FORMAT,
                         "add_bos_token or add_eos_token is set, but its token "
                         "id is missing");
    return LORI_OK;
}

static int32_t kind_of(const vocabulary *v, size_t i)
{
    return v->type ? v->type[i] : NORMAL;
}

/* {"token": id}. Texts are unique UTF-8 without NUL, as JSON keys must be. */
static lori_status vocab_json(const vocabulary *v, json_t *vocab, json_t *added,
                              lori_error *err)
{
    for (size_t i = 0; i < v->n; i++) {
        int32_t kind = kind_of(v, i);
        if (kind == UNUSED)
            continue;
        const char *text = v->token[i];
        if (strlen(text) != v->length[i] || v->length[i] == 0)
            return base_fail(err, LORI_FORMAT,
                             "token %zu is empty or holds a NUL", i);
        if (json_object_get(vocab, text))
            return base_fail(err, LORI_FORMAT,
                             "token %zu repeats the text of an earlier one", i);
        if (json_object_set_new(vocab, text, json_integer((json_int_t)i)))
            return base_fail(err, LORI_FORMAT, "token %zu is not UTF-8", i);
        if (kind != CONTROL && kind != USER_DEFINED)
            continue;
        json_t *row =
            json_pack("{sIsssbsbsbsbsb}", "id", (json_int_t)i, "content", text,
                      "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized",
                      0, "special", kind == CONTROL);
        if (json_array_append_new(added, row))
            return base_no_memory(err, 64);
    }
    return LORI_OK;
}

/* "left right" split at the first space after byte 0, as pairs. */
static lori_status merges_json(const vocabulary *v, const json_t *vocab,
                               json_t *merges, lori_error *err)
{
    base_str whole = {0};
    lori_status st = LORI_OK;
    for (size_t i = 0; i < v->n_merges && !st; i++) {
        const char *s = v->merge[i],
                   *space = v->merge_length[i] > 1 ? strchr(s + 1, ' ') : NULL;
        if (!space || !space[1] || strlen(s) != v->merge_length[i]) {
            st = base_fail(err, LORI_FORMAT, "merge %zu is not a pair", i);
            break;
        }
        size_t left = (size_t)(space - s);
        base_str_clear(&whole);
        base_str_add(&whole, s, left);
        base_str_puts(&whole, space + 1);
        if (whole.failed)
            st = base_no_memory(err, v->merge_length[i]);
        else if (!json_object_get(vocab, whole.s))
            st = base_fail(err, LORI_FORMAT,
                           "merge %zu makes a token that the vocabulary lacks",
                           i);
        else if (json_array_append_new(merges,
                                       json_pack("[s%s]", s, left, space + 1)))
            st = base_fail(err, LORI_FORMAT, "merge %zu is not UTF-8", i);
    }
    base_str_free(&whole);
    return st;
}

static json_t *pre_tokenizer_json(const pipeline *p)
{
    json_t *bytes =
        json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 0,
                  "trim_offsets", 1, "use_regex", p->split == NULL);
    if (!p->split && !p->digits)
        return bytes;
    json_t *first =
        p->digits
            ? json_pack("{sssb}", "type", "Digits", "individual_digits", 1)
            : json_pack("{sss{ss}sssb}", "type", "Split", "pattern", "Regex",
                        p->split, "behavior", "Isolated", "invert", 0);
    return json_pack("{sss[oo]}", "type", "Sequence", "pretokenizers", first,
                     bytes);
}

static void add_item(json_t *list, const char *special, const char *sequence,
                     int type)
{
    json_array_append_new(list, special
                                    ? json_pack("{s{sssi}}", "SpecialToken",
                                                "id", special, "type_id", type)
                                    : json_pack("{s{sssi}}", "Sequence", "id",
                                                sequence, "type_id", type));
}

static void describe(json_t *specials, const char *text, int64_t id)
{
    json_object_set_new(specials, text,
                        json_pack("{sss[I]s[s]}", "id", text, "ids",
                                  (json_int_t)id, "tokens", text));
}

/* [bos] A [eos], or null when neither is added. */
static json_t *post_processor_json(const vocabulary *v)
{
    if (!v->add_bos && !v->add_eos)
        return json_null();
    const char *bos = v->add_bos ? v->token[v->bos] : NULL;
    const char *eos = v->add_eos ? v->token[v->eos] : NULL;
    json_t *single = json_array(), *pair = json_array();
    json_t *specials = json_object();
    for (int s = 0; s < 2; s++) {
        const char *name = s ? "B" : "A";
        if (bos)
            add_item(pair, bos, NULL, s);
        add_item(pair, NULL, name, s);
        if (eos)
            add_item(pair, eos, NULL, s);
    }
    if (bos)
        add_item(single, bos, NULL, 0);
    add_item(single, NULL, "A", 0);
    if (eos)
        add_item(single, eos, NULL, 0);
    if (bos)
        describe(specials, bos, v->bos);
    if (eos)
        describe(specials, eos, v->eos);
    return json_pack("{sssososo}", "type", "TemplateProcessing", "single",
                     single, "pair", pair, "special_tokens", specials);
}

static json_t *byte_level_decoder(void)
{
    return json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 1,
                     "trim_offsets", 1, "use_regex", 1);
}

static lori_status write_tokenizer(const vocabulary *v, const char *folder,
                                   lori_error *err)
{
    json_t *vocab = json_object(), *added = json_array(),
           *merges = json_array();
    lori_status st = LORI_OK;
    if (!vocab || !added || !merges)
        st = base_no_memory(err, 64);
    if (!st)
        st = vocab_json(v, vocab, added, err);
    if (!st)
        st = merges_json(v, vocab, merges, err);
    json_t *bpe = json_pack(
        "{sssnsnsnsnsbsbsbsOsO}", "type", "BPE", "dropout", "unk_token",
        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
        "byte_fallback", 0, "ignore_merges", (int)v->pipe->ignore_merges,
        "vocab", vocab, "merges", merges);
    json_t *file = json_pack(
        "{sssnsnsOsososososo}", "version", "1.0", "truncation", "padding",
        "added_tokens", added, "normalizer",
        v->pipe->nfc ? json_pack("{ss}", "type", "NFC") : json_null(),
        "pre_tokenizer", pre_tokenizer_json(v->pipe), "post_processor",
        post_processor_json(v), "decoder", byte_level_decoder(), "model", bpe);
    if (!st && !file)
        st = base_no_memory(err, 1 << 20);
    if (!st)
        st = job_write_json(folder, "tokenizer.json", file, FORMAT_JSON_INDENT,
                            false, err);
    json_decref(file);
    json_decref(vocab);
    json_decref(added);
    json_decref(merges);
    return st;
}

static lori_status write_tokenizer_config(const vocabulary *v,
                                          const char *folder, int64_t context,
                                          lori_error *err)
{
    json_t *c =
        json_pack("{sssIsb}", "tokenizer_class", "PreTrainedTokenizerFast",
                  "model_max_length", (json_int_t)context,
                  "clean_up_tokenization_spaces", 0);
    if (!c)
        return base_no_memory(err, 256);
    const struct {
        const char *name;
        int64_t id;
    } named[] = {{"bos_token", v->bos},
                 {"eos_token", v->eos},
                 {"unk_token", v->unk},
                 {"pad_token", v->pad}};
    for (size_t i = 0; i < 4; i++)
        if (named[i].id >= 0)
            json_object_set_new(c, named[i].name,
                                json_string(v->token[named[i].id]));
    lori_status st =
        job_write_json(folder, "tokenizer_config.json", c,
                       FORMAT_JSON_SORT | FORMAT_JSON_INDENT, true, err);
    json_decref(c);
    return st;
}

static lori_status write_template(const format_gguf *g, const char *folder,
                                  lori_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    BASE_TRY(
        format_gguf_str(g, "tokenizer.chat_template", false, &text, &n, err));
    if (!text)
        return LORI_OK;
    if (n > (1U << 20))
        return base_fail(err, LORI_FORMAT,
                         "tokenizer.chat_template has %zu bytes", n);
    char *path = base_path_join(folder, "chat_template.jinja");
    lori_status st =
        path ? base_file_write(path, text, n, err) : base_no_memory(err, 1);
    free(path);
    return st;
}

/* Where generation stops: eos, eot, eom, and the end-of-turn tokens that
 * llama.cpp stops on by their text. */
static lori_status stop_ids(const format_gguf *g, const vocabulary *v,
                            json_t **out, lori_error *err)
{
    static const char *const turns[] = {"<|eot_id|>", "<|im_end|>", "<|end|>",
                                        "<end_of_turn>", "<|eom_id|>"};
    int64_t ids[3 + sizeof turns / sizeof *turns];
    size_t n = 0;
    ids[n++] = v->eos;
    BASE_TRY(import_token_id(g, "eot_token_id", (int64_t)v->n, &ids[n++], err));
    BASE_TRY(import_token_id(g, "eom_token_id", (int64_t)v->n, &ids[n++], err));
    for (size_t t = 0; t < sizeof turns / sizeof *turns; t++) {
        ids[n] = -1;
        for (size_t i = 0; i < v->n && ids[n] < 0; i++)
            if (kind_of(v, i) == CONTROL && !strcmp(v->token[i], turns[t]))
                ids[n] = (int64_t)i;
        n++;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        bool seen = ids[i] < 0;
        for (size_t j = 0; j < i && !seen; j++)
            seen = ids[j] == ids[i];
        if (!seen)
            json_array_append_new(list, json_integer(ids[i]));
    }
    if (json_array_size(list) == 1)
        *out = json_incref(json_array_get(list, 0));
    else if (json_array_size(list) > 1)
        *out = json_incref(list);
    json_decref(list);
    return LORI_OK;
}

lori_status import_tokenizer(const format_gguf *g, const char *folder,
                             int64_t vocab, int64_t context, json_t **stops,
                             lori_error *err)
{
    vocabulary v = {0};
    *stops = NULL;
    BASE_TRY(read_vocabulary(g, vocab, &v, err));
    BASE_TRY(write_tokenizer(&v, folder, err));
    BASE_TRY(write_tokenizer_config(&v, folder, context, err));
    BASE_TRY(write_template(g, folder, err));
    return stop_ids(g, &v, stops, err);
}
