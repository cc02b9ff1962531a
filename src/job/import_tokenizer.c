/* import_tokenizer.c - a GGUF vocabulary of kind "gpt2" (byte-level BPE) or
 * "llama" (SentencePiece BPE) becomes tokenizer.json, tokenizer_config.json
 * and chat_template.jinja. For "gpt2", `tokenizer.ggml.pre` names a pipeline
 * that is not in the file; the table here holds those that are known exactly,
 * any other name is refused, never guessed. For "llama" the merges, which the
 * file lacks, are found from the scores.
 * Source: spec/gguf.md 5; spec/text.md 1.7. */
#include "job/import_i.h"

#include <stdlib.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define R_O200K(tail, digits)                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail                          \
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail "|" digits              \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" IMPORT_SPACES

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
     false, false, true, IMPORT_SPLIT_L3("\\p{N}{1,3}"), true},
    {" dbrx smaug-bpe chatglm-bpe ", false, false, false,
     IMPORT_SPLIT_L3("\\p{N}{1,3}"), false},
    {" glm4 ", false, false, true, IMPORT_SPLIT_L3("\\p{N}{1,3}"), false},
    {" qwen2 deepseek-r1-qwen megrez ", true, false, false,
     IMPORT_SPLIT_L3("\\p{N}"), false},
    {" stablelm2 hunyuan ", false, false, false, IMPORT_SPLIT_L3("\\p{N}"),
     false},
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

lori_status import_token_id(const format_gguf *g, const char *key,
                            int64_t vocab, int64_t *id, lori_error *err)
{
    char name[96];
    snprintf(name, sizeof name, "tokenizer.ggml.%s", key);
    *id = -1;
    return format_gguf_i64(g, name, false, 0, vocab - 1, id, err);
}

/* A gpt2 vocabulary: its pipeline and whether BOS is added. */
static lori_status read_pipeline(const format_gguf *g, import_vocab *v,
                                 lori_error *err)
{
    const char *pre = NULL;
    size_t n = 0;
    BASE_TRY(format_gguf_str(g, "tokenizer.ggml.pre", true, &pre, &n, err));
    const pipeline *p = find_pipeline(pre);
    if (!p)
        return base_fail(err, LORI_UNSUPPORTED,
                         "tokenizer.ggml.pre '%s' names a pre-tokenizer that "
                         "is not known",
                         pre);
    v->add_bos = p->bos;
    v->ignore_merges = p->ignore_merges;
    return import_byte_pipeline(v, p->nfc, p->digits, p->split, err);
}

static lori_status read_tokens(const format_gguf *g, int64_t vocab,
                               import_vocab *v, lori_error *err)
{
    const char *const *text;
    const size_t *length;
    const int32_t *type = NULL;
    BASE_TRY(format_gguf_strings(g, "tokenizer.ggml.tokens", true, &v->n, &text,
                                 &length, err));
    if ((int64_t)v->n != vocab)
        return base_fail(err, LORI_MISMATCH,
                         "tokenizer.ggml.tokens has %zu entries, the "
                         "embedding %lld rows",
                         v->n, (long long)vocab);
    size_t types = v->n;
    BASE_TRY(format_gguf_i32s(g, "tokenizer.ggml.token_type", false, &types,
                              &type, err));
    if (type && types != v->n)
        return base_fail(err, LORI_MISMATCH,
                         "tokenizer.ggml.token_type has %zu entries for %zu "
                         "tokens",
                         types, v->n);
    v->token = base_alloc(v->n, sizeof *v->token);
    if (!v->token)
        return base_no_memory(err, v->n * sizeof *v->token);
    for (size_t i = 0; i < v->n; i++)
        v->token[i] = (import_token){.text = text[i],
                                     .n = length[i],
                                     .kind = type ? type[i] : IMPORT_NORMAL};
    return LORI_OK;
}

static lori_status read_special(const format_gguf *g, int64_t vocab,
                                import_vocab *v, lori_error *err)
{
    BASE_TRY(import_token_id(g, "bos_token_id", vocab, &v->bos, err));
    BASE_TRY(import_token_id(g, "eos_token_id", vocab, &v->eos, err));
    BASE_TRY(import_token_id(g, "unknown_token_id", vocab, &v->unk, err));
    BASE_TRY(import_token_id(g, "padding_token_id", vocab, &v->pad, err));
    BASE_TRY(format_gguf_bool(g, "tokenizer.ggml.add_bos_token", false,
                              &v->add_bos, err));
    BASE_TRY(format_gguf_bool(g, "tokenizer.ggml.add_eos_token", false,
                              &v->add_eos, err));
    if ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0))
        return base_fail(err, LORI_FORMAT,
                         "add_bos_token or add_eos_token is set, but its token "
                         "id is missing");
    return LORI_OK;
}

/* "left right" split at the first space after byte 0, as pairs. */
static lori_status read_merges(const format_gguf *g, import_vocab *v,
                               lori_error *err)
{
    size_t n;
    const char *const *merge;
    const size_t *length;
    BASE_TRY(format_gguf_strings(g, "tokenizer.ggml.merges", true, &n, &merge,
                                 &length, err));
    v->merges = json_array();
    if (!v->merges)
        return base_no_memory(err, 64);
    for (size_t i = 0; i < n; i++) {
        const char *s = merge[i],
                   *space = length[i] > 1 ? strchr(s + 1, ' ') : NULL;
        if (!space || !space[1] || strlen(s) != length[i])
            return base_fail(err, LORI_FORMAT, "merge %zu is not a pair", i);
        json_t *pair = json_pack("[s%s]", s, (size_t)(space - s), space + 1);
        if (!pair || json_array_append_new(v->merges, pair))
            return base_fail(err, LORI_FORMAT, "merge %zu is not UTF-8", i);
    }
    return LORI_OK;
}

/* Files made without tokenizer.model have one score for all tokens. Then the
 * order of ids stands for it, but tokens of marks alone come last. */
static void scores_of_ids(import_vocab *v)
{
    for (size_t i = 0; i < v->n; i++) {
        import_token *t = &v->token[i];
        bool marks = t->n > 0 && t->n % 3 == 0;
        for (size_t k = 0; marks && k < t->n; k += 3)
            marks = memcmp(t->text + k, "\xE2\x96\x81", 3) == 0;
        t->score = marks ? -1e9 : -(double)i;
    }
}

static lori_status read_scores(const format_gguf *g, import_vocab *v,
                               lori_error *err)
{
    const float *score = NULL;
    size_t n = v->n;
    bool same = true;
    BASE_TRY(
        format_gguf_f32s(g, "tokenizer.ggml.scores", true, &n, &score, err));
    if (n != v->n)
        return base_fail(err, LORI_MISMATCH,
                         "tokenizer.ggml.scores has %zu entries for %zu tokens",
                         n, v->n);
    double first = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        v->token[i].score = (double)score[i];
        if (v->token[i].kind != IMPORT_NORMAL)
            continue;
        same = same && (!any || v->token[i].score == first);
        first = v->token[i].score;
        any = true;
    }
    if (same)
        scores_of_ids(v);
    return import_find_merges(v, false, err);
}

static lori_status read_vocabulary(const format_gguf *g, int64_t vocab,
                                   import_vocab *v, lori_error *err)
{
    const char *kind = NULL;
    size_t n = 0;
    bool prefix = true;
    BASE_TRY(format_gguf_str(g, "tokenizer.ggml.model", true, &kind, &n, err));
    bool spm = strcmp(kind, "llama") == 0;
    if (!spm && strcmp(kind, "gpt2") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "tokenizer.ggml.model '%s' cannot be imported (known: "
                         "gpt2, byte-level BPE; llama, SentencePiece BPE)",
                         kind);
    BASE_TRY(format_gguf_bool(g, "tokenizer.ggml.add_space_prefix", false,
                              &prefix, err));
    v->add_bos = spm;
    BASE_TRY(spm ? import_spm_pipeline(v, prefix, err)
                 : read_pipeline(g, v, err));
    BASE_TRY(read_tokens(g, vocab, v, err));
    BASE_TRY(read_special(g, vocab, v, err));
    return spm ? read_scores(g, v, err) : read_merges(g, v, err);
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
static lori_status stop_ids(const format_gguf *g, const import_vocab *v,
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
            if (v->token[i].kind == IMPORT_CONTROL &&
                !strcmp(v->token[i].text, turns[t]))
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
    import_vocab v = {.context = context};
    *stops = NULL;
    lori_status st = read_vocabulary(g, vocab, &v, err);
    if (st == LORI_OK)
        st = import_write(&v, folder, err);
    if (st == LORI_OK)
        st = write_template(g, folder, err);
    if (st == LORI_OK)
        st = stop_ids(g, &v, stops, err);
    import_vocab_free(&v);
    return st;
}
