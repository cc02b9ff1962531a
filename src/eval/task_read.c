/* task_read.c - a task's YAML becomes an eval_task. Owns the table of keys and
 * what a whole task may say; every error is reported with its place, all
 * together. Keys have lm-evaluation-harness' names where it has them. Includes
 * eval_i.h and format. */
#include <stdlib.h>

#include "eval/eval_i.h"

static const format_choice kinds[] = {{"generate_until", EVAL_GENERATE},
                                      {"multiple_choice", EVAL_CHOICE},
                                      {"loglikelihood_rolling", EVAL_ROLLING},
                                      {NULL, 0}};
static const format_choice compares[] = {{"text", EVAL_TEXT},
                                         {"number", EVAL_NUMBER},
                                         {"expression", EVAL_EXPRESSION},
                                         {NULL, 0}};
enum { JUDGE_COMPLETION, JUDGE_BOTH };
static const format_choice judged[] = {{"completion", JUDGE_COMPLETION},
                                       {"prompt_and_completion", JUDGE_BOTH},
                                       {NULL, 0}};
enum { TAKE_FIRST, TAKE_LAST };
static const format_choice takes[] = {
    {"first", TAKE_FIRST}, {"last", TAKE_LAST}, {NULL, 0}};

/* The task, first, and what the YAML says beside it. */
typedef struct reading {
    eval_task t;
    int kind, compare, judged_text;
    char **metric_list;
    int64_t n_metric_list;
    const format_yaml_node *doc_to_choice, *extract;
    const char *file;
    const format_yaml_node *root;
    base_diag *d;
} reading;

#define AT(field) .offset = offsetof(reading, field)
#define LIST(field)                                                            \
    .offset = offsetof(reading, field), .count = offsetof(reading, n_##field)
#define MANY 1e15

/* Keys that fill the task itself come first: N_OWNED of them. */
static const format_key keys[] = {
    {"task", FORMAT_KEY_STRING, AT(t.name), .required = true},
    {"test_file", FORMAT_KEY_STRING, AT(t.test_file), .required = true},
    {"fewshot_file", FORMAT_KEY_STRING, AT(t.fewshot_file)},
    {"limit", FORMAT_KEY_INT, AT(t.limit), .hi = MANY},
    {"num_fewshot", FORMAT_KEY_INT, AT(t.num_fewshot), .hi = 1000},
    {"fewshot_delimiter", FORMAT_KEY_STRING, AT(t.fewshot_delimiter)},
    {"target_delimiter", FORMAT_KEY_STRING, AT(t.target_delimiter)},
    {"doc_to_text", FORMAT_KEY_STRING, AT(t.doc_to_text)},
    {"doc_to_target", FORMAT_KEY_STRING, AT(t.doc_to_target), .required = true},
    {"add_special_tokens", FORMAT_KEY_BOOL, AT(t.add_special_tokens)},
    {"apply_chat_template", FORMAT_KEY_BOOL, AT(t.apply_chat_template)},
    {"max_new_tokens", FORMAT_KEY_INT, AT(t.max_new_tokens), .lo = 1,
     .hi = 1 << 24},
    {"until", FORMAT_KEY_LIST, AT(t.until),
     .count = offsetof(reading, t.n_until)},
    {"temperature", FORMAT_KEY_REAL, AT(t.temperature), .hi = 100},
    {"top_k", FORMAT_KEY_INT, AT(t.top_k), .hi = 1 << 24},
    {"top_p", FORMAT_KEY_REAL, AT(t.top_p), .lo = 1e-6, .hi = 1},
    {"seed", FORMAT_KEY_INT, AT(t.seed), .hi = MANY},
    {"ignore_case", FORMAT_KEY_BOOL, AT(t.ignore_case)},
#define N_OWNED 18
    {"output_type", FORMAT_KEY_CHOICE, AT(kind), .choices = kinds,
     .required = true},
    {"doc_to_choice", FORMAT_KEY_NODE, AT(doc_to_choice)},
    {"extract", FORMAT_KEY_NODE, AT(extract)},
    {"judged_text", FORMAT_KEY_CHOICE, AT(judged_text), .choices = judged},
    {"compare", FORMAT_KEY_CHOICE, AT(compare), .choices = compares},
    {"metric_list", FORMAT_KEY_LIST, LIST(metric_list)},
};
#define N_KEYS (sizeof keys / sizeof *keys)

/* Keys that mean something to one output type only. */
static const struct {
    const char *key;
    eval_kind kind;
} only[] = {
    {"max_new_tokens", EVAL_GENERATE}, {"until", EVAL_GENERATE},
    {"temperature", EVAL_GENERATE},    {"top_k", EVAL_GENERATE},
    {"top_p", EVAL_GENERATE},          {"seed", EVAL_GENERATE},
    {"ignore_case", EVAL_GENERATE},    {"extract", EVAL_GENERATE},
    {"judged_text", EVAL_GENERATE},    {"compare", EVAL_GENERATE},
    {"doc_to_choice", EVAL_CHOICE},
};

/* The child of `map` named `key`, or NULL. */
static const format_yaml_node *child(const format_yaml_node *map,
                                     const char *key)
{
    for (size_t i = 0; i < map->n_children; i++)
        if (!strcmp(map->children[i].key, key))
            return &map->children[i];
    return NULL;
}

/* "file:line:column: key: fact", where the key stands, or the file's start. */
static void wrong(reading *r, const char *key, const char *fact)
{
    const format_yaml_node *at = child(r->root, key);
    base_diag_add(r->d, "%s:%d:%d: %s: %s", r->file, at ? at->line : 1,
                  at ? at->column : 1, key, fact);
}

/* ---- extract ---------------------------------------------------------- */

typedef struct extract_reading {
    eval_extract x;
    int take;
} extract_reading;
#define IN(field) .offset = offsetof(extract_reading, field)
static const format_key extract_keys[] = {
    {"remove", FORMAT_KEY_STRING, IN(x.remove)},
    {"after_last", FORMAT_KEY_STRING, IN(x.after_last)},
    {"marker", FORMAT_KEY_STRING, IN(x.marker)},
    {"regex", FORMAT_KEY_STRING, IN(x.regex)},
#define N_EXTRACT_OWNED 4
    {"take", FORMAT_KEY_CHOICE, IN(take), .choices = takes},
};
#define N_EXTRACT (sizeof extract_keys / sizeof *extract_keys)

static void read_extract(reading *r)
{
    extract_reading x = {0};
    format_keys_read(r->extract, r->file, extract_keys, N_EXTRACT, &x, r->d);
    r->t.extract = x.x;
    r->t.extract.last = x.take == TAKE_LAST;
    if (!x.x.regex) {
        if (x.x.marker || x.take == TAKE_LAST)
            wrong(r, "extract", "marker and take need a regex");
        return;
    }
    char fact[256];
    const format_yaml_node *at = child(r->extract, "regex");
    if (!extract_compile(&r->t, fact, sizeof fact) && at)
        base_diag_add(r->d, "%s:%d:%d: extract.regex: %s", r->file, at->line,
                      at->column, fact);
}

/* ---- choices ---------------------------------------------------------- */

static void add_choice(reading *r, const format_yaml_node *item)
{
    const char *fact = item->kind == FORMAT_YAML_SCALAR
                           ? template_check(item->text)
                           : "expected a text";
    char *copy = fact ? NULL : base_strdup(item->text);
    if (copy)
        r->t.doc_to_choice[r->t.n_choices++] = copy;
    else
        base_diag_add(r->d, "%s:%d:%d: doc_to_choice: %s", r->file, item->line,
                      item->column, fact ? fact : "out of memory");
}

static void read_choices(reading *r)
{
    const format_yaml_node *node = r->doc_to_choice;
    bool one = node->kind == FORMAT_YAML_SCALAR;
    size_t n = one ? 1 : node->n_children;
    char *name = one ? template_field(node->text) : NULL;
    r->t.choices_are_field = name != NULL;
    if (node->kind == FORMAT_YAML_MAP || (one && !name) || (!one && n < 2)) {
        wrong(r, "doc_to_choice",
              "expected a list of two or more texts, or \"{{field}}\" for a "
              "field that holds such a list");
        return;
    }
    r->t.doc_to_choice = base_alloc(n, sizeof *r->t.doc_to_choice);
    if (!r->t.doc_to_choice)
        wrong(r, "doc_to_choice", "out of memory");
    else if (one)
        r->t.doc_to_choice[r->t.n_choices++] = name;
    for (size_t i = 0; !one && r->t.doc_to_choice && i < n; i++)
        add_choice(r, &node->children[i]);
}

/* ---- the whole -------------------------------------------------------- */

static void check_templates(reading *r)
{
    const char *names[] = {"doc_to_text", "doc_to_target"};
    const char *texts[] = {r->t.doc_to_text, r->t.doc_to_target};
    for (int i = 0; i < 2; i++) {
        const char *fact = texts[i] ? template_check(texts[i]) : NULL;
        if (fact)
            wrong(r, names[i], fact);
    }
    if (!r->t.doc_to_text && r->t.kind != EVAL_ROLLING)
        base_diag_add(r->d, "%s:%d: doc_to_text is missing", r->file,
                      r->root->line);
}

static void check_metrics(reading *r)
{
    const char *names[EVAL_METRICS];
    int64_t n = metric_names(r->t.kind, names);
    if (r->n_metric_list > EVAL_METRICS)
        wrong(r, "metric_list", "too many metrics");
    for (int64_t i = 0; i < r->n_metric_list && i < EVAL_METRICS; i++) {
        const char *name = metric_find(r->t.kind, r->metric_list[i]);
        base_str fact = {0};
        base_str_printf(&fact, "'%s' is no metric of this output_type, which ",
                        r->metric_list[i]);
        for (int64_t k = 0; k < n; k++)
            base_str_printf(&fact, "%s%s", k ? ", " : "has ", names[k]);
        if (name)
            r->t.metrics[r->t.n_metrics++] = name;
        else
            wrong(r, "metric_list", fact.s ? fact.s : "unknown metric");
        base_str_free(&fact);
    }
    if (r->n_metric_list == 0) {
        memcpy(r->t.metrics, names, (size_t)n * sizeof *names);
        r->t.n_metrics = n;
    }
}

static void check_name(reading *r)
{
    const char *name = r->t.name;
    if (name && (!*name || strchr(name, '/') || *name == '.'))
        wrong(r, "task", "names a file of results: no '/', no '.' in front");
}

static void check_whole(reading *r)
{
    eval_task *t = &r->t;
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (only[i].kind != t->kind && child(r->root, only[i].key)) {
            base_str fact = {0};
            base_str_printf(&fact, "has no meaning with output_type: %s",
                            kinds[t->kind].name);
            wrong(r, only[i].key, fact.s ? fact.s : "no meaning here");
            base_str_free(&fact);
        }
    if (t->kind == EVAL_CHOICE && r->doc_to_choice)
        read_choices(r);
    else if (t->kind == EVAL_CHOICE)
        base_diag_add(r->d, "%s:%d: doc_to_choice is missing", r->file,
                      r->root->line);
    if (t->kind == EVAL_GENERATE && r->extract)
        read_extract(r);
    if (t->num_fewshot > 0 && !t->fewshot_file)
        wrong(r, "num_fewshot", "needs a fewshot_file");
    for (int64_t i = 0; i < t->n_until; i++)
        if (!*t->until[i])
            wrong(r, "until", "an empty text would stop everything");
    check_name(r);
    check_templates(r);
    check_metrics(r);
}

static bool set_default(char **field, const char *text)
{
    if (!*field)
        *field = base_strdup(text);
    return *field != NULL;
}

/* The YAML as JSON: for reports, and to see what changed since a former run. */
static json_t *config_of(const format_yaml_node *node)
{
    json_t *out;
    if (node->kind == FORMAT_YAML_SCALAR)
        return json_string(node->text);
    out = node->kind == FORMAT_YAML_LIST ? json_array() : json_object();
    for (size_t i = 0; i < node->n_children; i++) {
        json_t *value = config_of(&node->children[i]);
        if (node->kind == FORMAT_YAML_LIST)
            json_array_append_new(out, value);
        else
            json_object_set_new(out, node->children[i].key, value);
    }
    return out;
}

static lori_status read_task(reading *r, lori_error *err)
{
    format_keys_read(r->root, r->file, keys, N_KEYS, r, r->d);
    r->t.kind = (eval_kind)r->kind;
    r->t.compare = (eval_compare)r->compare;
    r->t.judge_prompt = r->judged_text == JUDGE_BOTH;
    if (r->root->kind == FORMAT_YAML_MAP && child(r->root, "output_type"))
        check_whole(r);
    BASE_TRY(base_diag_end(r->d, LORI_INVALID, err));
    r->t.config = config_of(r->root);
    r->t.source = base_strdup(r->file);
    if (!set_default(&r->t.fewshot_delimiter, "\n\n") ||
        !set_default(&r->t.target_delimiter, " ") ||
        !set_default(&r->t.doc_to_text, "") || !r->t.config || !r->t.source)
        return base_no_memory(err, 1);
    return LORI_OK;
}

lori_status task_parse(const char *text, size_t n, const char *file,
                       eval_task **out, lori_error *err)
{
    *out = NULL;
    format_yaml_node *root = NULL;
    eval_task *task = base_alloc(1, sizeof *task);
    if (!task)
        return base_no_memory(err, sizeof *task);
    lori_status st = format_yaml_parse(text, n, file, &root, err);
    if (st) {
        free(task);
        return st;
    }
    base_diag d = {0};
    reading r = {
        .t = {.add_special_tokens = true, .max_new_tokens = 256, .top_p = 1},
        .file = file,
        .root = root,
        .d = &d};
    st = read_task(&r, err);
    format_yaml_free(root);
    format_keys_free(keys + N_OWNED, N_KEYS - N_OWNED, &r);
    *task = r.t;
    if (st)
        eval_task_free(task);
    else
        *out = task;
    return st;
}

lori_status eval_task_load(const char *what, eval_task **out, lori_error *err)
{
    *out = NULL;
    base_str text = {0}, name = {0};
    char *bytes = NULL;
    size_t n = 0;
    lori_status st = LORI_OK;
    if (preset_text(what, &text)) {
        base_str_printf(&name, "preset %s", what);
        st = text.failed || name.failed
                 ? base_no_memory(err, text.len)
                 : task_parse(text.s, text.len, name.s, out, err);
    } else if (!base_is_file(what) && !strchr(what, '/') &&
               !strstr(what, ".y")) {
        const char *near = preset_nearest(what);
        st = base_fail(err, LORI_INVALID,
                       "task '%s' is neither a file nor a preset%s%s%s", what,
                       near ? "; did you mean '" : "", near ? near : "",
                       near ? "'?" : " (lori eval --list shows them)");
    } else if (!(st = base_file_read(what, (size_t)1 << 22, &bytes, &n, err)))
        st = task_parse(bytes, n, what, out, err);
    if (!st && bytes) {
        const char *file = base_path_name(what);
        (*out)->folder = file == what
                             ? base_strdup(".")
                             : base_strndup(what, (size_t)(file - what));
    }
    free(bytes);
    base_str_free(&text);
    base_str_free(&name);
    return st;
}

void eval_task_free(eval_task *task)
{
    if (!task)
        return;
    extract_free(task);
    format_keys_free(keys, N_OWNED, task);
    format_keys_free(extract_keys, N_EXTRACT_OWNED, &task->extract);
    for (int64_t i = 0; i < task->n_choices; i++)
        free(task->doc_to_choice[i]);
    free(task->doc_to_choice);
    free(task->source);
    free(task->folder);
    json_decref(task->config);
    free(task);
}
