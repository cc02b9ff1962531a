/* recipe_keys.c - the one table of recipe keys, and what follows from a row
 * alone: reading a value, writing it, help, the nearest name. Names, aliases
 * and defaults: spec/trainer.md 2. Refuses nothing by itself; recipe.c decides
 * what a whole recipe may say. Includes train_i.h and libc. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "train/train_i.h"

static const recipe_choice dtypes[] = {
    {"bf16", BASE_BF16}, {"f32", BASE_F32},     {"bfloat16", BASE_BF16},
    {"fp32", BASE_F32},  {"float32", BASE_F32}, {NULL, 0}};
static const recipe_choice methods[] = {
    {"lori", TRAIN_LORI}, {"lora", TRAIN_LORA}, {NULL, 0}};
static const recipe_choice phases[] = {
    {"dense", TRAIN_DENSE}, {"sparse", TRAIN_SPARSE}, {NULL, 0}};
static const recipe_choice schedules[] = {
    {"constant", TRAIN_CONSTANT},
    {"linear", TRAIN_LINEAR},
    {"constant_with_warmup", TRAIN_CONSTANT},
    {NULL, 0}};
static const recipe_choice reductions[] = {{"token_mean", TRAIN_TOKEN_MEAN},
                                           {"example_sum", TRAIN_EXAMPLE_SUM},
                                           {NULL, 0}};
static const recipe_choice clips[] = {{"global", TRAIN_CLIP_GLOBAL},
                                      {"per_tensor", TRAIN_CLIP_PER_TENSOR},
                                      {NULL, 0}};

#define AT(field)     offsetof(train_recipe, field)
#define STRING(field) .type = RECIPE_STRING, .offset = AT(field)
#define BOOLEAN(field, text)                                                   \
    .type = RECIPE_BOOL, .offset = AT(field), .preset = (text)
#define INTEGER(field, text, low, high)                                        \
    .type = RECIPE_INT, .offset = AT(field), .preset = (text), .lo = (low),    \
    .hi = (high)
#define REAL(field, text, low, high)                                           \
    .type = RECIPE_REAL, .offset = AT(field), .preset = (text), .lo = (low),   \
    .hi = (high)
#define CHOICE(field, text, table)                                             \
    .type = RECIPE_CHOICE, .offset = AT(field), .preset = (text),              \
    .choices = (table)
#define MANY 1e15 /* no bound worth naming; exact in a double */

const recipe_key recipe_keys[] = {
    {"model_name_or_path", "model", STRING(model_name_or_path),
     .required = true,
     .help = "base model: a folder, or a name in the hub's cache"},
    {"dtype", "model", CHOICE(dtype, "bf16", dtypes), .fixed = true,
     .aliases = "torch_dtype policy_dtype",
     .help = "of weights and activations; sums and optimizer state are f32"},

    {"train_file", "data", STRING(train_file), .required = true,
     .help = "JSON Lines or a JSON array of rows: instruction/input/output, "
             "prompt/completion, question/answer or input_ids/labels"},
    {"validation_file", "data", STRING(validation_file), .aliases = "eval_file",
     .help = "rows of the same forms whose loss is measured"},
    {"columns.prompt", "data", STRING(columns.prompt), .fixed = true,
     .help = "the rows' field that is the prompt"},
    {"columns.completion", "data", STRING(columns.completion), .fixed = true,
     .help = "the rows' field that is the completion"},
    {"columns.instruction", "data", STRING(columns.instruction), .fixed = true,
     .help = "the rows' field that is the instruction"},
    {"columns.input", "data", STRING(columns.input), .fixed = true,
     .help = "the rows' field that is the instruction's input"},
    {"columns.output", "data", STRING(columns.output), .fixed = true,
     .help = "the rows' field that is the output"},
    {"prompt_template", "data", STRING(prompt_template), .fixed = true,
     .help = "the prompt, with {field} for a field of the row, {{ and }} for "
             "braces"},
    {"apply_chat_template", "data", BOOLEAN(apply_chat_template, "false"),
     .fixed = true,
     .help = "the prompt is a user's message, the completion its reply"},
    {"chat_template", "data", STRING(chat_template), .fixed = true,
     .help = "instead of the model's: a file, alpaca, llama3, chatml or none"},
    {"max_seq_length", "data", INTEGER(max_seq_length, "2048", 2, 1 << 24),
     .aliases = "cutoff_len max_length max_seq_len", .fixed = true,
     .help = "tokens of a row; longer rows lose their end"},
    {"max_train_samples", "data", INTEGER(max_train_samples, "0", 0, MANY),
     .help = "use the first rows only; 0: all"},
    {"max_eval_samples", "data", INTEGER(max_eval_samples, "0", 0, MANY),
     .help = "use the first validation rows only; 0: all"},
    {"shuffle", "data", BOOLEAN(shuffle, "true"), .fixed = true,
     .help = "a new order every epoch, from the seed; false: the file's"},
    {"completion_only_loss", "data", BOOLEAN(completion_only_loss, "true"),
     .aliases = "mask_prompt train_on_completions", .fixed = true,
     .help = "predict the completion only, not the prompt"},

    {"method", "adapter", CHOICE(method, "lori", methods), .fixed = true,
     .aliases = "finetuning_type",
     .help = "lori: A is random and frozen; lora: A is trained too"},
    {"lori_phase", "adapter", CHOICE(phase, NULL, phases), .fixed = true,
     .preset_note = "sparse with a mask, else dense",
     .help = "dense: all of B (LoRI-D); sparse: a mask's entries (LoRI-S)"},
    {"lora_rank", "adapter", INTEGER(lora_rank, "32", 1, 65536),
     .aliases = "r lora_r rank", .fixed = true, .help = "rank of the adapter"},
    {"lora_alpha", "adapter", REAL(lora_alpha, NULL, 0x1p-40, 1e9),
     .preset_note = "2 * lora_rank", .aliases = "alpha", .fixed = true,
     .help = "the update is scaled by lora_alpha / lora_rank"},
    {"use_rslora", "adapter", BOOLEAN(use_rslora, "false"), .fixed = true,
     .help = "scale by lora_alpha / sqrt(lora_rank) instead"},
    {"lora_target_modules", "adapter", .type = RECIPE_LIST,
     .offset = AT(lora_target_modules), .flag = AT(n_targets),
     .preset = "all-linear", .aliases = "lora_target target_modules",
     .fixed = true, .help = "q_proj, v_proj, ... or all-linear"},
    {"lori_a_seed", "adapter", .type = RECIPE_SEED, .offset = AT(lori_a_seed),
     .flag = AT(has_a_seed),
     .preset_note = "the mask's, else from output_dir's last name",
     .fixed = true, .help = "seed of the random A"},
    {"lori_mask_path", "adapter", STRING(lori_mask_path),
     .help = "folder of the mask (lori mask) for LoRI-S"},
    {"adapter_name_or_path", "adapter", STRING(adapter_name_or_path),
     .help = "start from this adapter: its A, B, rank, alpha and modules"},

    {"per_device_train_batch_size", "train",
     INTEGER(per_device_train_batch_size, "8", 1, 1 << 20),
     .aliases = "batch_size", .fixed = true,
     .help = "rows of one pass, packed without padding"},
    {"gradient_accumulation_steps", "train",
     INTEGER(gradient_accumulation_steps, "1", 1, 1 << 20),
     .aliases = "grad_accumulation_steps", .fixed = true,
     .help = "passes of one optimizer step; exactly a larger batch"},
    {"gradient_checkpointing", "train",
     BOOLEAN(gradient_checkpointing, "false"),
     .aliases = "grad_checkpoint activation_checkpointing "
                "enable_activation_checkpointing",
     .help = "the least memory and the most time, whatever memory_budget "
             "allows; the same result"},
    {"memory_budget", "train", .type = RECIPE_BYTES,
     .offset = AT(memory_budget), .lo = 1,
     .preset_note = "what is free, less 1/16 of all memory",
     .help = "most memory of the run, mapped weights included (6GB, 512MiB); "
             "layers that do not fit are recomputed; the same result"},
    {"num_train_epochs", "train", REAL(num_train_epochs, "3", 0x1p-40, 1e9),
     .aliases = "epochs num_epochs n_epochs",
     .help = "may be a fraction; steps are rounded up"},
    {"max_steps", "train", INTEGER(max_steps, "-1", -1, MANY),
     .aliases = "iters", .help = "optimizer steps; -1: from the epochs"},
    {"seed", "train", .type = RECIPE_SEED, .offset = AT(seed), .preset = "42",
     .aliases = "random_seed", .fixed = true, .help = "of the rows' order"},

    {"learning_rate", "optim", REAL(learning_rate, "2e-4", 0, 1e38),
     .aliases = "lr", .fixed = true, .help = "at its highest"},
    {"lr_scheduler_type", "optim",
     CHOICE(lr_scheduler_type, "constant", schedules), .fixed = true,
     .help = "after the warm-up: constant, or linear to 0"},
    {"warmup_steps", "optim", INTEGER(warmup_steps, "0", 0, MANY),
     .aliases = "num_warmup_steps", .fixed = true,
     .help = "the rate rises linearly from 0; the first step has rate 0"},
    {"warmup_ratio", "optim", REAL(warmup_ratio, "0.0", 0, 1), .fixed = true,
     .help = "the same as a share of all steps, rounded up"},
    {"adam_beta1", "optim", REAL(adam_beta1, "0.9", 0, 1 - 0x1p-30),
     .fixed = true, .help = "AdamW"},
    {"adam_beta2", "optim", REAL(adam_beta2, "0.999", 0, 1 - 0x1p-30),
     .fixed = true, .help = "AdamW"},
    {"adam_epsilon", "optim", REAL(adam_epsilon, "1e-8", 0x1p-80, 1),
     .aliases = "adam_eps", .fixed = true, .help = "AdamW"},
    {"weight_decay", "optim", REAL(weight_decay, "0.0", 0, 1e6), .fixed = true,
     .help = "AdamW, decoupled"},
    {"max_grad_norm", "optim", REAL(max_grad_norm, "1.0", 0, 1e30),
     .aliases = "clip_grad_norm", .fixed = true,
     .help = "longer gradients are scaled down to this norm; 0: off"},
    {"clip_scope", "optim", CHOICE(clip_scope, "global", clips), .fixed = true,
     .help = "norm of everything, or of each matrix"},
    {"loss_reduction", "optim",
     CHOICE(loss_reduction, "token_mean", reductions), .fixed = true,
     .help = "mean over the step's target tokens, or over its rows of their "
             "sums (the LoRI reference's)"},

    {"per_device_eval_batch_size", "eval",
     INTEGER(per_device_eval_batch_size, "8", 1, 1 << 20),
     .aliases = "eval_batch_size", .help = "rows of one evaluation pass"},
    {"eval_steps", "eval", INTEGER(eval_steps, "0", 0, MANY),
     .aliases = "steps_per_eval eval_every run_val_every_n_steps",
     .help = "evaluate every so many steps; 0: at the end only"},

    {"output_dir", "save", STRING(output_dir), .aliases = "adapter_path",
     .required = true,
     .help = "folder of the adapter, metrics.jsonl and recipe.yaml"},
    {"overwrite_output_dir", "save", BOOLEAN(overwrite_output_dir, "false"),
     .help = "replace the adapter that output_dir holds"},
    {"save_steps", "save", INTEGER(save_steps, "0", 0, MANY),
     .aliases = "save_every save_every_n_steps",
     .help = "checkpoint every so many steps; 0: none on the way"},
    {"resume_from_checkpoint", "save", BOOLEAN(resume_from_checkpoint, "false"),
     .aliases = "resume",
     .help = "go on where output_dir's checkpoint stopped, bit for bit"},

    {"logging_steps", "log", INTEGER(logging_steps, "10", 1, MANY),
     .aliases = "log_every_n_steps steps_per_report",
     .help = "a line in metrics.jsonl every so many steps"},

    {"n_threads", "parallel", INTEGER(n_threads, "0", 0, 4096),
     .aliases = "num_threads threads",
     .help = "0: OMP_NUM_THREADS, else all processors; the result is the same"},
};
const int64_t recipe_n_keys = sizeof recipe_keys / sizeof *recipe_keys;

static const char *const groups[] = {"model", "data",  "adapter",
                                     "train", "optim", "eval",
                                     "save",  "log",   "parallel"};
#define N_GROUPS (sizeof groups / sizeof *groups)

/* Keys of other trainers, and what stands in their place here. */
static const struct {
    const char *name, *advice;
} foreign[] = {
    {"lora_dropout", "there is no dropout; remove it"},
    {"dropout", "there is no dropout; remove it"},
    {"packing", "rows are always packed; remove it"},
    {"padding_free", "rows are never padded; remove it"},
    {"group_by_length", "rows are never padded; remove it"},
    {"optim", "the optimizer is always AdamW; remove it"},
    {"optimizer", "the optimizer is always AdamW; remove it"},
    {"bf16", "write dtype: bf16"},
    {"fp16", "write dtype: bf16 or f32"},
    {"tf32", "write dtype: bf16 or f32"},
    {"save_total_limit", "one checkpoint is kept; remove it"},
    {"report_to", "metrics go to output_dir/metrics.jsonl; remove it"},
    {"data_seed", "seed is the seed of the rows' order"},
    {"lori_sparsity", "the sparsity is chosen when the mask is made"},
    {"sparsity_ratio", "the sparsity is chosen when the mask is made"},
    {"bias", "biases are not trained; remove it"},
    {"load_in_4bit", "the base is held as dtype says; remove it"},
    {"load_in_8bit", "the base is held as dtype says; remove it"},
};

bool recipe_is_group(const char *name)
{
    for (size_t i = 0; i < N_GROUPS; i++)
        if (!strcmp(groups[i], name))
            return true;
    return false;
}

const char *recipe_advice(const char *name)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (!strcmp(foreign[i].name, name))
            return foreign[i].advice;
    return NULL;
}

/* ---- names ---------------------------------------------------------- */

static bool word_in(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = words; p && *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && !memcmp(p, word, n))
            return true;
        p += len;
        p += strspn(p, " ");
    }
    return false;
}

int64_t recipe_find(const char *name)
{
    for (int64_t i = 0; i < recipe_n_keys; i++)
        if (!strcmp(recipe_keys[i].name, name) ||
            word_in(recipe_keys[i].aliases, name))
            return i;
    return -1;
}

char *recipe_nearest(const char *name)
{
    enum { MAX = 160 };
    const char *words[MAX];
    char *copies[MAX];
    size_t n = 0, n_copies = 0;
    for (int64_t i = 0; i < recipe_n_keys; i++) {
        if (n < MAX)
            words[n++] = recipe_keys[i].name;
        for (const char *p = recipe_keys[i].aliases; p && *p;) {
            size_t len = strcspn(p, " ");
            char *copy = n < MAX ? base_strndup(p, len) : NULL;
            if (copy)
                words[n++] = copies[n_copies++] = copy;
            p += len;
            p += strspn(p, " ");
        }
    }
    const char *found = base_nearest(name, words, n);
    char *out = found ? base_strdup(found) : NULL;
    while (n_copies)
        free(copies[--n_copies]);
    return out;
}

/* ---- reading -------------------------------------------------------- */

static void *field(const recipe_key *key, train_recipe *r)
{
    return (char *)r + key->offset;
}

static bool say(base_str *why, const char *fmt, ...) BASE_PRINTF(2, 3);
static bool say(base_str *why, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    base_str_clear(why);
    base_str_vprintf(why, fmt, ap);
    va_end(ap);
    return false;
}

/* "at least 1", "from 0 to 1": without bounds nobody would reach. */
static bool say_range(const recipe_key *key, const char *text, base_str *why)
{
    if (key->hi >= 1e6)
        return key->lo > 0 && key->lo < 1e-6
                   ? say(why, "%s is too small: more than 0 is needed", text)
                   : say(why, "%s is not possible: at least %g and at most %g",
                         text, key->lo, key->hi);
    return say(why, "%s is not possible: from %g to %g", text, key->lo,
               key->hi);
}

static bool read_bool(const char *text, bool *out, base_str *why)
{
    static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {
                                                                "false", "no",
                                                                "off"};
    for (int i = 0; i < 3; i++) {
        if (!strcasecmp(text, yes[i]))
            return *out = true, true;
        if (!strcasecmp(text, no[i]))
            return *out = false, true;
    }
    return say(why, "'%s' is not true or false", text);
}

static bool read_int(const recipe_key *key, const char *text, int64_t *out,
                     base_str *why)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end)
        return say(why, "'%s' is not a whole number", text);
    if (errno || (double)v < key->lo || (double)v > key->hi)
        return say_range(key, text, why);
    *out = v;
    return true;
}

static bool read_seed(const char *text, uint64_t *out, base_str *why)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 0);
    if (*text < '0' || *text > '9' || end == text || *end || errno)
        return say(why, "'%s' is not a seed: a whole number from 0 to 2^64-1",
                   text);
    *out = v;
    return true;
}

/* In the C locale whatever the program's is: "0,5" is not a number here. */
static bool read_real(const recipe_key *key, const char *text, double *out,
                      base_str *why)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return say(why, "out of memory");
    char *end;
    double v = strtod_l(text, &end, c);
    freelocale(c);
    if (end == text || *end || !isfinite(v) || strpbrk(text, "xX"))
        return say(why, "'%s' is not a number", text);
    if (v < key->lo || v > key->hi)
        return say_range(key, text, why);
    *out = v;
    return true;
}

static bool read_choice(const recipe_key *key, const char *text, int *out,
                        base_str *why)
{
    const char *names[16];
    size_t n = 0;
    for (const recipe_choice *c = key->choices; c->name; c++) {
        if (!strcmp(c->name, text))
            return *out = c->value, true;
        names[n++] = c->name;
    }
    const char *near = base_nearest(text, names, n);
    say(why, "'%s' is not one of", text);
    const recipe_choice *first = key->choices;
    for (const recipe_choice *c = first; c->name; c++) {
        bool alias = false;
        for (const recipe_choice *b = first; b < c; b++)
            alias |= b->value == c->value;
        if (!alias)
            base_str_printf(why, "%s %s", c == first ? "" : ",", c->name);
    }
    if (near)
        base_str_printf(why, "; did you mean '%s'?", near);
    return false;
}

/* One name of a list, without blanks, quotes and brackets around it. */
static char *list_item(const char *p, size_t len)
{
    static const char around[] = " \t\"'[]";
    while (len && strchr(around, *p))
        p++, len--;
    while (len && strchr(around, p[len - 1]))
        len--;
    return base_strndup(p, len);
}

static bool read_list(const char *text, char ***out, int64_t *n, base_str *why)
{
    if (!strcmp(text, "all-linear") || !strcmp(text, "all"))
        return true;
    size_t commas = 0;
    for (const char *p = text; *p; p++)
        commas += *p == ',';
    char **list = base_alloc(commas + 1, sizeof *list);
    if (!list)
        return say(why, "out of memory");
    *out = list;
    for (const char *p = text;;) {
        size_t len = strcspn(p, ",");
        if (!(list[*n] = list_item(p, len)))
            return say(why, "out of memory");
        if (!*list[(*n)++])
            return say(why, "'%s' has an empty name", text);
        if (!p[len])
            return true;
        p += len + 1;
    }
}

bool recipe_read(const recipe_key *key, const char *text, train_recipe *r,
                 base_str *why)
{
    void *at = field(key, r);
    char *flag = (char *)r + key->flag;
    switch (key->type) {
    case RECIPE_STRING:
        if (!*text)
            return say(why, "the value is empty");
        *(char **)at = base_strdup(text);
        return *(char **)at || say(why, "out of memory");
    case RECIPE_BOOL:
        return read_bool(text, at, why);
    case RECIPE_INT:
        return read_int(key, text, at, why);
    case RECIPE_BYTES:
        if (!base_parse_bytes(text, at) || (double)*(int64_t *)at < key->lo)
            return say(why,
                       "'%s' is not a size: a number with KB, MB, GB, KiB, "
                       "MiB, GiB or alone",
                       text);
        return true;
    case RECIPE_SEED:
        if (!read_seed(text, at, why))
            return false;
        if (key->flag)
            *(bool *)flag = true;
        return true;
    case RECIPE_REAL:
        return read_real(key, text, at, why);
    case RECIPE_CHOICE:
        return read_choice(key, text, at, why);
    case RECIPE_LIST:
        if (read_list(text, at, (int64_t *)flag, why))
            return true;
        recipe_clear(key, r);
        return false;
    }
    return false;
}

void recipe_clear(const recipe_key *key, train_recipe *r)
{
    void *at = field(key, r);
    if (key->type == RECIPE_STRING) {
        free(*(char **)at);
        *(char **)at = NULL;
    } else if (key->type == RECIPE_LIST) {
        int64_t *n = (int64_t *)((char *)r + key->flag);
        char **list = *(char ***)at;
        for (int64_t i = 0; i < *n; i++)
            free(list[i]);
        free(list);
        *(char ***)at = NULL;
        *n = 0;
    }
}

/* ---- writing -------------------------------------------------------- */

/* Bare where YAML and our reader take it for a string, else in quotes. */
static void put_string(const char *s, base_str *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP"
                                "QRSTUVWXYZ0123456789_./-+";
    if (*s && *s != '-' && strspn(s, plain) == strlen(s) &&
        strcasecmp(s, "null") != 0) {
        base_str_puts(out, s);
        return;
    }
    base_str_puts(out, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            base_str_printf(out, "\\%c", c);
        else if (c == '\n')
            base_str_puts(out, "\\n");
        else if (c == '\t')
            base_str_puts(out, "\\t");
        else if (c < 0x20 || c == 0x7f)
            base_str_printf(out, "\\x%02x", c);
        else
            base_str_add(out, s, 1);
    }
    base_str_puts(out, "\"");
}

static void put_list(char *const *list, int64_t n, base_str *out)
{
    if (!list) {
        base_str_puts(out, "all-linear");
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        base_str_puts(out, i ? ", " : "[");
        put_string(list[i], out);
    }
    base_str_puts(out, "]");
}

static const char *choice_name(const recipe_key *key, int value)
{
    for (const recipe_choice *c = key->choices; c->name; c++)
        if (c->value == value)
            return c->name;
    return "?";
}

void recipe_value_text(const recipe_key *key, const train_recipe *r,
                       base_str *out)
{
    const void *at = (const char *)r + key->offset;
    const void *flag = (const char *)r + key->flag;
    char number[32];
    switch (key->type) {
    case RECIPE_STRING: {
        const char *s = *(char *const *)at;
        if (s)
            put_string(s, out);
        else
            base_str_puts(out, "null");
        break;
    }
    case RECIPE_BOOL:
        base_str_puts(out, *(const bool *)at ? "true" : "false");
        break;
    case RECIPE_INT:
        base_str_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case RECIPE_BYTES:
        if (*(const int64_t *)at == 0)
            base_str_puts(out, "null");
        else
            base_str_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case RECIPE_SEED:
        if (key->flag && !*(const bool *)flag)
            base_str_puts(out, "null");
        else
            base_str_printf(out, "%llu",
                            (unsigned long long)*(const uint64_t *)at);
        break;
    case RECIPE_REAL:
        base_str_puts(out, base_f64_text(*(const double *)at, number));
        break;
    case RECIPE_CHOICE:
        base_str_puts(out, choice_name(key, *(const int *)at));
        break;
    case RECIPE_LIST:
        put_list(*(char **const *)at, *(const int64_t *)flag, out);
        break;
    }
}

#define COLUMNS "columns."

void train_recipe_text(const train_recipe *recipe, base_str *out)
{
    for (size_t g = 0; g < N_GROUPS; g++) {
        base_str_printf(out, "%s:\n", groups[g]);
        bool in_columns = false;
        for (int64_t i = 0; i < recipe_n_keys; i++) {
            const recipe_key *key = &recipe_keys[i];
            if (strcmp(key->group, groups[g]) != 0)
                continue;
            const char *name = key->name;
            bool column = !strncmp(name, COLUMNS, strlen(COLUMNS));
            if (column && !in_columns)
                base_str_puts(out, "  columns:\n");
            in_columns = column;
            if (column)
                name += strlen(COLUMNS);
            base_str_printf(out, "%s%s: ", column ? "    " : "  ", name);
            recipe_value_text(key, recipe, out);
            base_str_puts(out, "\n");
        }
    }
}

static void help_type(const recipe_key *key, base_str *out)
{
    static const char *const names[] = {
        [RECIPE_STRING] = "text",      [RECIPE_BOOL] = "true or false",
        [RECIPE_INT] = "whole number", [RECIPE_SEED] = "whole number",
        [RECIPE_BYTES] = "size",       [RECIPE_REAL] = "number",
        [RECIPE_LIST] = "list"};
    if (key->type != RECIPE_CHOICE) {
        base_str_puts(out, names[key->type]);
        return;
    }
    for (const recipe_choice *c = key->choices; c->name; c++)
        base_str_printf(out, "%s%s", c == key->choices ? "" : "|", c->name);
}

void train_recipe_help(base_str *out)
{
    for (size_t g = 0; g < N_GROUPS; g++) {
        base_str_printf(out, "%s%s:\n", g ? "\n" : "", groups[g]);
        for (int64_t i = 0; i < recipe_n_keys; i++) {
            const recipe_key *key = &recipe_keys[i];
            if (strcmp(key->group, groups[g]) != 0)
                continue;
            const char *preset = key->preset_note ? key->preset_note
                                 : key->preset    ? key->preset
                                 : key->required  ? "required"
                                                  : "not set";
            base_str_printf(out, "  %s (", key->name);
            help_type(key, out);
            base_str_printf(out, "; %s)\n      %s\n", preset, key->help);
            if (key->aliases)
                base_str_printf(out, "      also: %s\n", key->aliases);
        }
    }
}
