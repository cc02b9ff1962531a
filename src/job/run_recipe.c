/* run_recipe.c - the recipe of `lori run` becomes a plan: for every task its
 * trainings (LoRI-D, mask, LoRI-S, LoRA, as `methods` says), an evaluation,
 * merges, the continual pairs, and the evaluation of all. Collects what is
 * wrong with the recipe. Format: docs/RUN.md. */
#include <stdarg.h>
#include <stdlib.h>

#include "job/run_i.h"

const char *const run_kind_names[RUN_KINDS] = {"train", "mask", "merge",
                                               "eval"};

lori_status run_words_add(run_words *list, lori_error *err, const char *fmt,
                          ...)
{
    base_str text = {0};
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&text, fmt, ap);
    va_end(ap);
    base_str_puts(&text, "");
    char *word = base_str_take(&text);
    char **grown =
        word ? base_resize(list->word, (size_t)list->n + 1, sizeof *grown)
             : NULL;
    if (!grown) {
        free(word);
        return base_no_memory(err, strlen(fmt));
    }
    list->word = grown;
    list->word[list->n++] = word;
    return LORI_OK;
}

void run_words_free(run_words *list)
{
    for (int64_t i = 0; i < list->n; i++)
        free(list->word[i]);
    free(list->word);
    *list = (run_words){0};
}

/* ---- the recipe ---------------------------------------------------------- */

typedef struct recipe {
    char *model, *output, *data_dir;
    const format_yaml_node *train, *methods, *tasks, *merges, *continual, *eval;
} recipe;
#define AT(field) .offset = offsetof(recipe, field)
static const format_key recipe_rows[] = {
    {"model_name_or_path", FORMAT_KEY_STRING, AT(model)},
    {"output_dir", FORMAT_KEY_STRING, AT(output)},
    {"data_dir", FORMAT_KEY_STRING, AT(data_dir)},
    {"train", FORMAT_KEY_NODE, AT(train)},
    {"methods", FORMAT_KEY_NODE, AT(methods), .required = true},
    {"tasks", FORMAT_KEY_NODE, AT(tasks), .required = true},
    {"merges", FORMAT_KEY_NODE, AT(merges)},
    {"continual", FORMAT_KEY_NODE, AT(continual)},
    {"eval", FORMAT_KEY_NODE, AT(eval)},
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const format_choice dtypes[] = {
    {"bf16", LORI_DTYPE_BF16}, {"f32", LORI_DTYPE_F32}, {NULL, 0}};
#define IN_PLAN(field) .offset = offsetof(run_plan, field)
static const format_key eval_rows[] = {
    {"limit", FORMAT_KEY_INT, IN_PLAN(eval_limit), .hi = 1e15},
    {"batch_size", FORMAT_KEY_INT, IN_PLAN(eval_batch_size), .hi = 4096},
    {"log_samples", FORMAT_KEY_BOOL, IN_PLAN(eval_log_samples)},
    {"dtype", FORMAT_KEY_CHOICE, IN_PLAN(eval_dtype), .choices = dtypes},
};

typedef struct merge_row {
    char *of, **weights;
    int64_t n_weights;
    int method;
} merge_row;
static const format_choice merge_methods[] = {
    {"cat", LORI_MERGE_CAT}, {"linear", LORI_MERGE_LINEAR}, {NULL, 0}};
static const format_key merge_rows[] = {
    {"of", FORMAT_KEY_STRING, .offset = offsetof(merge_row, of),
     .required = true},
    {"weights", FORMAT_KEY_LIST, .offset = offsetof(merge_row, weights),
     .count = offsetof(merge_row, n_weights)},
    {"method", FORMAT_KEY_CHOICE, .offset = offsetof(merge_row, method),
     .choices = merge_methods},
};

typedef struct continual_row {
    char *first, **then, **methods;
    int64_t n_then, n_methods;
} continual_row;
static const format_key continual_rows[] = {
    {"first", FORMAT_KEY_STRING, .offset = offsetof(continual_row, first),
     .required = true},
    {"then", FORMAT_KEY_LIST, .offset = offsetof(continual_row, then),
     .count = offsetof(continual_row, n_then)},
    {"methods", FORMAT_KEY_LIST, .offset = offsetof(continual_row, methods),
     .count = offsetof(continual_row, n_methods), .required = true},
};

/* What is being planned. */
typedef struct planning {
    const lori_run_options *o;
    const char *file;
    run_plan *plan;
    recipe r;
    base_diag d;
    char *said; /* the last fact about a training */
    lori_error *err;
} planning;

static const format_yaml_node *child(const format_yaml_node *map,
                                     const char *key)
{
    for (size_t i = 0; map && i < map->n_children; i++)
        if (map->kind == FORMAT_YAML_MAP && !strcmp(map->children[i].key, key))
            return &map->children[i];
    return NULL;
}

/* "file:line:column: ..." of a node's key. */
static void wrong(planning *p, const format_yaml_node *at, const char *fmt, ...)
    BASE_PRINTF(3, 4);
static void wrong(planning *p, const format_yaml_node *at, const char *fmt, ...)
{
    base_str text = {0};
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&text, fmt, ap);
    va_end(ap);
    base_diag_add(&p->d, "%s:%d:%d: %s", p->file,
                  at->key ? at->key_line : at->line,
                  at->key ? at->key_column : at->column, text.s ? text.s : "");
    base_str_free(&text);
}

/* The task or method that a recipe names; a wrong name is added to `d`. */
static const format_yaml_node *named(planning *p, const format_yaml_node *map,
                                     const char *name, const char *what,
                                     const format_yaml_node *at)
{
    const char *names[64];
    size_t n = 0;
    const format_yaml_node *node = child(map, name);
    if (node)
        return node;
    for (; n < map->n_children && n < 64; n++)
        names[n] = map->children[n].key;
    const char *near = base_nearest(name, names, n);
    wrong(p, at, "%s '%s' is not in the recipe%s%s%s", what, name,
          near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* ---- stages ---------------------------------------------------------------
 */

static run_stage *add_stage(planning *p, run_kind kind, const char *name)
{
    run_plan *plan = p->plan;
    run_stage *grown =
        base_resize(plan->stages, (size_t)plan->n + 1, sizeof *grown);
    if (!grown)
        return NULL;
    plan->stages = grown;
    run_stage *s = &grown[plan->n];
    *s = (run_stage){.kind = kind,
                     .name = base_strdup(name),
                     .task = -1,
                     .method = -1,
                     .first = -1};
    s->output = base_path_join(plan->output, name);
    plan->n++;
    return s->name && s->output ? s : NULL;
}

static bool adapter_key(const char *key)
{
    return !strcmp(key, "mask_of") || !strcmp(key, "sparsity") ||
           !strcmp(key, "eval");
}

/* "a,b" of a list, "k=v,l=w" of a map. */
static void join_values(const format_yaml_node *node, base_str *out)
{
    for (size_t i = 0; i < node->n_children; i++) {
        const format_yaml_node *item = &node->children[i];
        base_str_puts(out, i ? "," : "");
        if (item->key)
            base_str_printf(out, "%s=", item->key);
        base_str_puts(out, item->kind == FORMAT_YAML_SCALAR ? item->text : "");
    }
}

/* A file of rows: as named, or in the data folder. */
static lori_status add_file(planning *p, run_stage *s, const char *key,
                            const char *path)
{
    const char *dir = p->plan->data_dir;
    char *other = dir && !base_is_file(path) ? base_path_join(dir, path) : NULL;
    const char *use = other && base_is_file(other) ? other : path;
    lori_status st = run_words_add(&s->settings, p->err, "%s=%s", key, use);
    if (!st)
        st = run_words_add(&s->inputs, p->err, "%s", use);
    free(other);
    return st;
}

/* Keys of a map become settings of a training. */
static lori_status add_keys(planning *p, run_stage *s,
                            const format_yaml_node *map)
{
    for (size_t i = 0; map && i < map->n_children; i++) {
        const format_yaml_node *node = &map->children[i];
        if (!node->key || adapter_key(node->key) || format_yaml_is_null(node))
            continue;
        if (!strcmp(node->key, "train_file") ||
            !strcmp(node->key, "validation_file")) {
            if (node->kind == FORMAT_YAML_SCALAR)
                BASE_TRY(add_file(p, s, node->key, node->text));
            continue;
        }
        if (node->kind == FORMAT_YAML_MAP &&
            strcmp(node->key, "columns") != 0) {
            BASE_TRY(add_keys(p, s, node)); /* a group: "optim: {...}" */
            continue;
        }
        base_str value = {0};
        if (node->kind == FORMAT_YAML_SCALAR)
            base_str_puts(&value, node->text);
        else
            join_values(node, &value);
        lori_status st = run_words_add(&s->settings, p->err, "%s=%s", node->key,
                                       value.s ? value.s : "");
        base_str_free(&value);
        BASE_TRY(st);
    }
    return LORI_OK;
}

/* A line a fact; the same fact about many trainings is said once. */
static void add_facts(planning *p, const run_stage *s,
                      const format_yaml_node *at, const char *facts)
{
    static const char place[] = "command line: ";
    if (p->said && !strcmp(p->said, facts))
        return;
    free(p->said);
    p->said = base_strdup(facts);
    for (const char *line = facts; *line;) {
        size_t n = strcspn(line, "\n");
        size_t skip = strncmp(line, place, strlen(place)) ? 0 : strlen(place);
        wrong(p, at, "training %s: %.*s", s->name, (int)(n - skip),
              line + skip);
        line += n + (line[n] == '\n');
    }
}

/* The settings must be a recipe that `lori train` takes. */
static lori_status check_training(planning *p, const run_stage *s,
                                  const format_yaml_node *at)
{
    train_recipe r;
    lori_error why;
    lori_status st = train_recipe_load(
        NULL, (const char *const *)s->settings.word, s->settings.n, &r, &why);
    if (st == LORI_INVALID)
        add_facts(p, s, at, why.message);
    else if (st)
        return base_fail(p->err, st, "%s", why.message);
    train_recipe_free(&r);
    return LORI_OK;
}

/* The names of a task's adapters and masks. */
static char *join_name(const char *x, const char *y)
{
    base_str text = {0};
    base_str_printf(&text, "%s-%s", x, y);
    return base_str_take(&text);
}

static int64_t place_in(const format_yaml_node *map,
                        const format_yaml_node *node)
{
    return node - map->children;
}

static lori_status add_mask(planning *p, const format_yaml_node *task,
                            const char *of, const format_yaml_node *method,
                            char **folder)
{
    const format_yaml_node *node = child(method, "sparsity");
    double sparsity = 0.9;
    if (node && (node->kind != FORMAT_YAML_SCALAR ||
                 !format_real(node->text, &sparsity) ||
                 !(sparsity > 0 && sparsity < 1)))
        wrong(p, node, "sparsity: expected a number between 0 and 1");
    base_str name = {0};
    base_str_printf(&name, "%s-%s-mask", task->key, method->key);
    run_stage *s = name.s ? add_stage(p, RUN_MASK, name.s) : NULL;
    base_str_free(&name);
    char *source = join_name(task->key, of);
    if (!s || !source) {
        free(source);
        return base_no_memory(p->err, 1);
    }
    s->sparsity = sparsity;
    s->task = place_in(p->r.tasks, task);
    s->method = place_in(p->r.methods, method);
    *folder = base_strdup(s->output);
    char *path = base_path_join(p->plan->output, source);
    lori_status st = *folder && path ? run_words_add(&s->settings, p->err,
                                                     "sparsity=%.17g", sparsity)
                                     : base_no_memory(p->err, 1);
    if (!st)
        st = run_words_add(&s->inputs, p->err, "%s", path);
    free(source);
    free(path);
    return st;
}

/* Settings shared by all trainings, in the order in which the later wins. */
static lori_status add_common(planning *p, run_stage *s,
                              const format_yaml_node *task,
                              const format_yaml_node *method)
{
    const run_plan *plan = p->plan;
    BASE_TRY(run_words_add(&s->settings, p->err, "model_name_or_path=%s",
                           plan->model));
    BASE_TRY(run_words_add(&s->inputs, p->err, "%s", plan->model));
    BASE_TRY(add_keys(p, s, p->r.train));
    BASE_TRY(add_keys(p, s, task));
    BASE_TRY(add_keys(p, s, method));
    for (int64_t i = 0; i < p->o->n_overrides; i++)
        BASE_TRY(run_words_add(&s->settings, p->err, "%s", p->o->overrides[i]));
    return run_words_add(&s->settings, p->err, "output_dir=%s", s->output);
}

/* `first`: the task whose adapter it starts from, or NULL; `mask`: folder, or
 * NULL. */
static lori_status add_training(planning *p, const char *name,
                                const format_yaml_node *task,
                                const format_yaml_node *method,
                                const format_yaml_node *first, const char *mask)
{
    run_stage *s = add_stage(p, RUN_TRAIN, name);
    if (!s)
        return base_no_memory(p->err, 1);
    BASE_TRY(add_common(p, s, task, method));
    if (mask) {
        BASE_TRY(
            run_words_add(&s->settings, p->err, "lori_mask_path=%s", mask));
        BASE_TRY(run_words_add(&s->inputs, p->err, "%s", mask));
    }
    if (first) {
        BASE_TRY(run_words_add(&s->inputs, p->err, "%s/%s-%s", p->plan->output,
                               first->key, method->key));
        BASE_TRY(run_words_add(&s->settings, p->err, "adapter_name_or_path=%s",
                               s->inputs.word[s->inputs.n - 1]));
        s->first = place_in(p->r.tasks, first);
    }
    s->task = place_in(p->r.tasks, task);
    s->method = place_in(p->r.methods, method);
    BASE_TRY(check_training(p, s, method));
    return run_words_add(&p->plan->rows, p->err, "%s", name);
}

/* The method whose adapter a method's mask is made of, or NULL. */
static const char *mask_of(const format_yaml_node *method)
{
    const format_yaml_node *node = child(method, "mask_of");
    return node && node->kind == FORMAT_YAML_SCALAR ? node->text : NULL;
}

static lori_status plan_method(planning *p, const format_yaml_node *task,
                               const format_yaml_node *method)
{
    const char *of = mask_of(method);
    char *mask = NULL, *name = join_name(task->key, method->key);
    lori_status st = name ? LORI_OK : base_no_memory(p->err, 1);
    const format_yaml_node *source =
        of ? named(p, p->r.methods, of, "mask_of: method", method) : NULL;
    if (source && source >= method)
        wrong(p, method, "mask_of: %s must stand before %s", of, method->key);
    if (!st && of)
        st = add_mask(p, task, of, method, &mask);
    if (!st)
        st = add_training(p, name, task, method, NULL, mask);
    free(mask);
    free(name);
    return st;
}

/* ---- evaluation ------------------------------------------------------------
 */

/* A preset, or a file named from here or from the recipe's folder. *at: its
 * place in the plan's list. */
static lori_status add_eval_task(planning *p, const format_yaml_node *node,
                                 int64_t *at)
{
    const char *what = node->text;
    const char *slash = strrchr(p->file, '/');
    base_str path = {0};
    if (slash && !base_is_file(what)) {
        base_str_add(&path, p->file, (size_t)(slash - p->file) + 1);
        base_str_puts(&path, what);
    }
    if (path.s && base_is_file(path.s))
        what = path.s;
    lori_status st = LORI_OK;
    for (*at = 0; *at < p->plan->tasks.n; ++*at)
        if (!strcmp(p->plan->tasks.word[*at], what))
            break;
    if (*at == p->plan->tasks.n)
        st = run_words_add(&p->plan->tasks, p->err, "%s", what);
    base_str_free(&path);
    return st;
}

/* *own: the place of the first, which measures the task; -1: none. */
static lori_status plan_eval_tasks(planning *p, const format_yaml_node *task,
                                   int64_t *own)
{
    const format_yaml_node *node = child(task, "eval");
    *own = -1;
    if (!node)
        return LORI_OK;
    if (node->kind == FORMAT_YAML_SCALAR)
        return add_eval_task(p, node, own);
    for (size_t i = 0; i < node->n_children; i++) {
        int64_t at;
        if (node->children[i].kind != FORMAT_YAML_SCALAR)
            continue;
        BASE_TRY(add_eval_task(p, &node->children[i], &at));
        *own = *own < 0 ? at : *own;
    }
    return LORI_OK;
}

/* The base and all adapters so far, on all tasks. */
static lori_status add_evaluation(planning *p, const char *name)
{
    run_plan *plan = p->plan;
    if (plan->tasks.n == 0)
        return LORI_OK;
    run_stage *s = add_stage(p, RUN_EVAL, name);
    if (!s)
        return base_no_memory(p->err, 1);
    s->n_rows = plan->rows.n;
    free(s->output); /* both evaluations write to one folder */
    s->output = base_path_join(plan->output, "eval");
    if (!s->output)
        return base_no_memory(p->err, 1);
    BASE_TRY(run_words_add(&s->settings, p->err,
                           "limit=%lld log_samples=%d dtype=%d",
                           (long long)plan->eval_limit,
                           (int)plan->eval_log_samples, plan->eval_dtype));
    BASE_TRY(run_words_add(&s->inputs, p->err, "%s", plan->model));
    for (int64_t i = 0; i < plan->rows.n; i++)
        BASE_TRY(run_words_add(&s->inputs, p->err, "%s/%s", plan->output,
                               plan->rows.word[i]));
    return LORI_OK;
}

/* ---- merges and pairs ------------------------------------------------------
 */

static lori_status read_weights(planning *p, const format_yaml_node *node,
                                const merge_row *row, run_stage *s, int64_t n)
{
    s->weights = base_alloc((size_t)n, sizeof *s->weights);
    if (!s->weights)
        return base_no_memory(p->err, (size_t)n * sizeof *s->weights);
    if (row->n_weights > 1 && row->n_weights != n)
        wrong(p, node, "%lld weights for %lld adapters",
              (long long)row->n_weights, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = row->n_weights == n ? i : 0;
        s->weights[i] = 1;
        if (row->n_weights && !format_real(row->weights[k], &s->weights[i]))
            wrong(p, node, "weight '%s' is not a number", row->weights[k]);
        BASE_TRY(
            run_words_add(&s->settings, p->err, "weight=%.17g", s->weights[i]));
    }
    return LORI_OK;
}

static lori_status plan_merge(planning *p, const format_yaml_node *node)
{
    merge_row row = {0};
    format_keys_read(node, p->file, merge_rows, COUNT(merge_rows), &row, &p->d);
    lori_status st = LORI_OK;
    const format_yaml_node *known =
        row.of ? named(p, p->r.methods, row.of, "of: method", node) : NULL;
    run_stage *s = known ? add_stage(p, RUN_MERGE, node->key) : NULL;
    const format_yaml_node *tasks = p->r.tasks;
    if (known && !s)
        st = base_no_memory(p->err, 1);
    if (s) {
        s->merge = (lori_merge_method)row.method;
        s->method = place_in(p->r.methods, known);
        st = run_words_add(&s->settings, p->err, "method=%d", row.method);
    }
    for (size_t i = 0; s && i < tasks->n_children && !st; i++)
        st = run_words_add(&s->inputs, p->err, "%s/%s-%s", p->plan->output,
                           tasks->children[i].key, row.of);
    if (s && !st)
        st = read_weights(p, node, &row, s, (int64_t)tasks->n_children);
    if (s && !st)
        st = run_words_add(&p->plan->rows, p->err, "%s", node->key);
    format_keys_free(merge_rows, COUNT(merge_rows), &row);
    return st;
}

/* `then` is learned from the adapter that `first` left. Source: spec/lori.md
 * 1.5: A and B of the first task, the mask of the second. */
static lori_status plan_pair(planning *p, const format_yaml_node *first,
                             const format_yaml_node *then,
                             const format_yaml_node *method)
{
    base_str name = {0}, mask = {0};
    base_str_printf(&name, "%s-%s-%s", first->key, then->key, method->key);
    base_str_printf(&mask, "%s/%s-%s-mask", p->plan->output, then->key,
                    method->key);
    lori_status st = name.failed || mask.failed
                         ? base_no_memory(p->err, 1)
                         : add_training(p, name.s, then, method, first,
                                        mask_of(method) ? mask.s : NULL);
    base_str_free(&name);
    base_str_free(&mask);
    return st;
}

static bool is_listed(char *const *list, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return n == 0;
}

static lori_status plan_continual(planning *p)
{
    const format_yaml_node *node = p->r.continual, *tasks = p->r.tasks;
    continual_row row = {0};
    format_keys_read(node, p->file, continual_rows, COUNT(continual_rows), &row,
                     &p->d);
    lori_status st = LORI_OK;
    const format_yaml_node *first =
        row.first ? named(p, tasks, row.first, "first: task", node) : NULL;
    bool fine = first != NULL;
    for (int64_t i = 0; i < row.n_then; i++)
        fine &= named(p, tasks, row.then[i], "then: task", node) != NULL;
    for (int64_t k = 0; fine && k < row.n_methods && !st; k++) {
        const format_yaml_node *method =
            named(p, p->r.methods, row.methods[k], "methods: method", node);
        for (size_t i = 0; method && i < tasks->n_children && !st; i++) {
            const format_yaml_node *then = &tasks->children[i];
            if (then != first && is_listed(row.then, row.n_then, then->key))
                st = plan_pair(p, first, then, method);
        }
    }
    format_keys_free(continual_rows, COUNT(continual_rows), &row);
    return st;
}

/* ---- the whole --------------------------------------------------------------
 */

static bool is_map(planning *p, const format_yaml_node *node, const char *what)
{
    if (node && node->kind == FORMAT_YAML_MAP && node->n_children > 0)
        return true;
    if (node)
        wrong(p, node, "expected a map of %s", what);
    return false;
}

static void check_names(planning *p, const format_yaml_node *map)
{
    for (size_t i = 0; i < map->n_children; i++) {
        const format_yaml_node *node = &map->children[i];
        if (!*node->key || strchr(node->key, '/') || *node->key == '.')
            wrong(p, node, "'%s' names a folder: no '/', no '.' in front",
                  node->key);
        if (node->kind != FORMAT_YAML_MAP && !format_yaml_is_null(node))
            wrong(p, node, "%s: expected a map of keys", node->key);
    }
}

/* Every stage has a folder of its own. */
static void check_stages(planning *p)
{
    const run_plan *plan = p->plan;
    for (int64_t i = 0; i < plan->n; i++) {
        const char *name = plan->stages[i].name;
        bool taken = !strcmp(name, "eval") || !strcmp(name, "stamps") ||
                     !strcmp(name, "base");
        for (int64_t k = 0; k < i; k++)
            taken |= !strcmp(name, plan->stages[k].name);
        if (taken)
            base_diag_add(&p->d,
                          "%s: the name '%s' is taken; rename a task, "
                          "method or merge",
                          p->file, name);
    }
}

/* What the indices of stages mean. */
static lori_status keep_names(planning *p)
{
    const recipe *r = &p->r;
    run_plan *plan = p->plan;
    for (size_t i = 0; i < r->tasks->n_children; i++)
        BASE_TRY(run_words_add(&plan->learned, p->err, "%s",
                               r->tasks->children[i].key));
    for (size_t i = 0; i < r->methods->n_children; i++)
        BASE_TRY(run_words_add(&plan->methods, p->err, "%s",
                               r->methods->children[i].key));
    plan->own = base_alloc(r->tasks->n_children, sizeof *plan->own);
    return plan->own ? LORI_OK : base_no_memory(p->err, 1);
}

static lori_status plan_stages(planning *p)
{
    const recipe *r = &p->r;
    check_names(p, r->tasks);
    check_names(p, r->methods);
    if (r->merges)
        check_names(p, r->merges);
    BASE_TRY(keep_names(p));
    for (size_t i = 0; i < r->tasks->n_children; i++) {
        const format_yaml_node *task = &r->tasks->children[i];
        BASE_TRY(plan_eval_tasks(p, task, &p->plan->own[i]));
        for (size_t k = 0; k < r->methods->n_children; k++)
            BASE_TRY(plan_method(p, task, &r->methods->children[k]));
    }
    bool more = r->merges || r->continual;
    BASE_TRY(add_evaluation(p, more ? "eval-adapters" : "eval-all"));
    for (size_t i = 0; r->merges && i < r->merges->n_children; i++)
        BASE_TRY(plan_merge(p, &r->merges->children[i]));
    if (r->continual)
        BASE_TRY(plan_continual(p));
    return more ? add_evaluation(p, "eval-all") : LORI_OK;
}

/* An option beats the recipe; one of them must say it. */
static lori_status choose(planning *p, const char *option, const char *value,
                          const char *what, char **out)
{
    const char *use = option ? option : value;
    if (!use && what)
        base_diag_add(&p->d, "%s:1: %s is missing", p->file, what);
    if (!use)
        return LORI_OK;
    *out = base_strdup(use);
    return *out ? LORI_OK : base_no_memory(p->err, strlen(use));
}

static lori_status read_recipe(planning *p, const format_yaml_node *root)
{
    run_plan *plan = p->plan;
    const lori_run_options *o = p->o;
    format_keys_read(root, p->file, recipe_rows, COUNT(recipe_rows), &p->r,
                     &p->d);
    BASE_TRY(
        choose(p, o->model, p->r.model, "model_name_or_path", &plan->model));
    BASE_TRY(choose(p, o->output, p->r.output, "output_dir", &plan->output));
    BASE_TRY(choose(p, o->data_dir, p->r.data_dir, NULL, &plan->data_dir));
    if (p->r.eval)
        format_keys_read(p->r.eval, p->file, eval_rows, COUNT(eval_rows), plan,
                         &p->d);
    if (!plan->model || !plan->output)
        return LORI_OK;
    for (size_t n = strlen(plan->output); n > 1 && plan->output[n - 1] == '/';)
        plan->output[--n] = '\0'; /* paths of stages are compared as text */
    bool maps = is_map(p, p->r.methods, "methods");
    maps &= is_map(p, p->r.tasks, "tasks");
    if (p->r.train)
        maps &= is_map(p, p->r.train, "training keys");
    if (p->r.merges)
        maps &= is_map(p, p->r.merges, "merges");
    if (!maps)
        return LORI_OK;
    BASE_TRY(plan_stages(p));
    check_stages(p);
    return LORI_OK;
}

lori_status run_plan_load(const lori_run_options *o, run_plan *plan,
                          lori_error *err)
{
    *plan = (run_plan){.hub_cache = o->hub_cache};
    planning p = {.o = o, .file = o->recipe, .plan = plan, .err = err};
    format_yaml_node *root = NULL;
    BASE_TRY(job_need(o->recipe, "a recipe", err));
    BASE_TRY(format_yaml_load(o->recipe, &root, err));
    lori_status st = read_recipe(&p, root);
    format_keys_free(recipe_rows, COUNT(recipe_rows), &p.r);
    format_yaml_free(root);
    free(p.said);
    if (st)
        base_str_free(&p.d.lines);
    else
        st = base_diag_end(&p.d, LORI_INVALID, err);
    if (st)
        run_plan_free(plan);
    return st;
}

void run_plan_free(run_plan *plan)
{
    for (int64_t i = 0; i < plan->n; i++) {
        run_stage *s = &plan->stages[i];
        free(s->name);
        free(s->output);
        free(s->weights);
        run_words_free(&s->settings);
        run_words_free(&s->inputs);
    }
    free(plan->stages);
    free(plan->model);
    free(plan->folder);
    free(plan->output);
    free(plan->data_dir);
    run_words_free(&plan->rows);
    run_words_free(&plan->tasks);
    run_words_free(&plan->learned);
    run_words_free(&plan->methods);
    free(plan->own);
    *plan = (run_plan){0};
}
