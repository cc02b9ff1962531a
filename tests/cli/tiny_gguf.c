/* tiny_gguf.c - writes a small random Llama as a GGUF file, for the tests of
 * the program: `lori import` makes the model folder of it.
 *   tiny_gguf OUT.gguf [SEED]
 * 2 layers, width 64, 4 heads on 2 key/value heads, feed-forward 96, a byte
 * vocabulary of 256 symbols, 3 special tokens and some merges, F32. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, D = 64, HEADS = 4, KV = 2, HD = 16, FFN = 96 };
enum { U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, I32 = 5 };

static FILE *out;
static uint64_t state;

static void put(const void *p, size_t n)
{
    if (fwrite(p, 1, n, out) != n) {
        perror("tiny_gguf");
        exit(1);
    }
}

static void put_u32(uint32_t x)
{
    put(&x, 4);
}

static void put_u64(uint64_t x)
{
    put(&x, 8);
}

static void put_text(const char *s)
{
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void key(const char *name, uint32_t type)
{
    put_text(name);
    put_u32(type);
}

static void key_u32(const char *name, uint32_t x)
{
    key(name, U32);
    put_u32(x);
}

static void key_text(const char *name, const char *s)
{
    key(name, STRING);
    put_text(s);
}

static double uniform(void)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* Approximately normal, std 0.1. */
static float weight(void)
{
    double s = 0;
    for (int i = 0; i < 12; i++)
        s += uniform();
    return (float)(0.1 * (s - 6));
}

/* The printable character that stands for a byte (GPT-2's table) as UTF-8. */
static void byte_symbol(int b, char *s)
{
    int c = b;
    if (!((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)) {
        int n = 0;
        for (int i = 0; i < b; i++)
            n += !((i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) ||
                   i >= 0xae);
        c = 256 + n;
    }
    if (c < 0x80) {
        s[0] = (char)c;
        s[1] = 0;
    } else {
        s[0] = (char)(0xc0 | (c >> 6));
        s[1] = (char)(0x80 | (c & 0x3f));
        s[2] = 0;
    }
}

static const char *const merges[] = {
    "\xc4\xa0 t", "h e",        "\xc4\xa0t he", "i n", "\xc4\xa0 a",
    "o r",        "r e",        "a n",          "i t", "o n",
    "e s",        "\xc4\xa0 s", "e r",          "a t", "\xc4\xa0 o"};
#define N_MERGES (sizeof merges / sizeof *merges)
#define VOCAB    (3 + 256 + (int)N_MERGES)

static void put_vocabulary(void)
{
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>",
                                          "<|im_end|>"};
    key("tokenizer.ggml.tokens", ARRAY);
    put_u32(STRING);
    put_u64(VOCAB);
    for (int i = 0; i < 3; i++)
        put_text(special[i]);
    for (int b = 0; b < 256; b++) {
        char s[4];
        byte_symbol(b, s);
        put_text(s);
    }
    for (size_t i = 0; i < N_MERGES; i++) {
        char s[16];
        const char *space = strchr(merges[i], ' ');
        snprintf(s, sizeof s, "%.*s%s", (int)(space - merges[i]), merges[i],
                 space + 1);
        put_text(s);
    }
    key("tokenizer.ggml.token_type", ARRAY);
    put_u32(I32);
    put_u64(VOCAB);
    for (int i = 0; i < VOCAB; i++)
        put_u32(i < 3 ? 3 : 1);
    key("tokenizer.ggml.merges", ARRAY);
    put_u32(STRING);
    put_u64(N_MERGES);
    for (size_t i = 0; i < N_MERGES; i++)
        put_text(merges[i]);
}

static void put_metadata(void)
{
    key_text("general.architecture", "llama");
    key_u32("llama.context_length", 256);
    key_u32("llama.embedding_length", D);
    key_u32("llama.block_count", LAYERS);
    key_u32("llama.feed_forward_length", FFN);
    key_u32("llama.attention.head_count", HEADS);
    key_u32("llama.attention.head_count_kv", KV);
    key_u32("llama.rope.dimension_count", HD);
    key("llama.attention.layer_norm_rms_epsilon", F32);
    float eps = 1e-5F;
    put(&eps, 4);
    key_text("tokenizer.ggml.model", "gpt2");
    key_text("tokenizer.ggml.pre", "smollm");
    put_vocabulary();
    key_u32("tokenizer.ggml.bos_token_id", 1);
    key_u32("tokenizer.ggml.eos_token_id", 2);
    key_u32("tokenizer.ggml.padding_token_id", 2);
    key("tokenizer.ggml.add_bos_token", BOOL);
    put("", 1);
    key_text("tokenizer.chat_template",
             "{% for message in messages %}{% if loop.first and "
             "messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
             "are a helpful AI assistant named SmolLM, trained by Hugging "
             "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
             "message['role'] + '\n' + message['content'] + '<|im_end|>' + "
             "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
             "'<|im_start|>assistant\n' }}{% endif %}");
}

typedef struct tensor {
    char name[48];
    uint64_t rows, cols; /* cols 0: a vector */
    uint64_t at;
} tensor;

static tensor tensors[2 + 9 * LAYERS];
static int n_tensors;
static uint64_t offset;

static void add(const char *name, uint64_t rows, uint64_t cols)
{
    tensor *t = &tensors[n_tensors++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
    t->at = offset;
    uint64_t bytes = rows * (cols ? cols : 1) * 4;
    offset += (bytes + 31) / 32 * 32;
}

static void list_tensors(void)
{
    add("token_embd.weight", VOCAB, D);
    add("output_norm.weight", D, 0);
    for (int l = 0; l < LAYERS; l++) {
        const struct {
            const char *name;
            uint64_t rows, cols;
        } parts[] = {{"attn_norm", D, 0},       {"ffn_norm", D, 0},
                     {"attn_q", HEADS * HD, D}, {"attn_k", KV * HD, D},
                     {"attn_v", KV * HD, D},    {"attn_output", D, HEADS * HD},
                     {"ffn_gate", FFN, D},      {"ffn_up", FFN, D},
                     {"ffn_down", D, FFN}};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[48];
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].name);
            add(name, parts[i].rows, parts[i].cols);
        }
    }
}

static void pad(void)
{
    static const char zeros[32];
    long at = ftell(out);
    put(zeros, (size_t)((32 - at % 32) % 32));
}

int main(int argc, char **argv)
{
    if (argc < 2 || !(out = fopen(argv[1], "wb"))) {
        fprintf(stderr, "usage: tiny_gguf OUT.gguf [SEED]\n");
        return 2;
    }
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    list_tensors();
    put("GGUF", 4);
    put_u32(3);
    put_u64((uint64_t)n_tensors);
    put_u64(19);
    put_metadata();
    for (int i = 0; i < n_tensors; i++) {
        const tensor *t = &tensors[i];
        put_text(t->name);
        put_u32(t->cols ? 2 : 1);
        if (t->cols)
            put_u64(t->cols);
        put_u64(t->rows);
        put_u32(0);
        put_u64(t->at);
    }
    pad();
    for (int i = 0; i < n_tensors; i++) {
        const tensor *t = &tensors[i];
        uint64_t n = t->rows * (t->cols ? t->cols : 1);
        for (uint64_t j = 0; j < n; j++) {
            float x = t->cols ? weight() : 1 + weight();
            put(&x, 4);
        }
        pad();
    }
    return fclose(out) == 0 ? 0 : 1;
}
