/* recipe.c - a YAML recipe and key=value overrides become a train_recipe.
 * Owns what a whole recipe may say: required keys, one value a key, keys that
 * contradict each other. All errors are reported together. The keys
 * themselves stand in recipe_keys.c. Includes train_i.h and format.h. */
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"
#include "train/train_i.h"

/* Where a key got its value. */
typedef struct source {
    bool set, bad, cli;
    char *name;  /* as spelled */
    char *where; /* "recipe.yaml:3:5" or "command line" */
} source;

typedef struct loading {
    const char *file; /* NULL: overrides only */
    train_recipe *r;
    source *source; /* [recipe_n_keys] */
    diag d;
    bool no_memory;
} loading;

static const char command_line[] = "command line";

static bool is_null(const char *text)
{
    return !*text || !strcmp(text, "~") || !strcasecmp(text, "null");
}

/* "file:line:column" in `buf`. */
static const char *place(const loading *l, int line, int column, base_str *buf)
{
    base_str_clear(buf);
    base_str_printf(buf, "%s:%d:%d", l->file, line, column);
    return buf->s ? buf->s : l->file;
}

static void forget(source *s)
{
    free(s->name);
    free(s->where);
    *s = (source){0};
}

/* ---- one value ------------------------------------------------------ */

static void unknown_key(loading *l, const char *name, const char *where)
{
    const char *advice = recipe_advice(name);
    if (advice) {
        diag_add(&l->d, "%s: key '%s' is not used by lori: %s", where, name,
                 advice);
        return;
    }
    if (recipe_is_group(name)) {
        diag_add(&l->d, "%s: '%s' is a group: it holds keys, not a value",
                 where, name);
        return;
    }
    char *near = recipe_nearest(name);
    if (near)
        diag_add(&l->d, "%s: unknown key '%s'; did you mean '%s'?", where, name,
                 near);
    else
        diag_add(&l->d, "%s: unknown key '%s', and none is similar", where,
                 name);
    free(near);
}

/* Two values of one key from the same place: the same, or an error. */
static void compare(loading *l, int64_t i, const char *name, const char *where,
                    const train_recipe *other)
{
    const source *s = &l->source[i];
    base_str x = {0}, y = {0};
    recipe_value_text(&recipe_keys[i], l->r, &x);
    recipe_value_text(&recipe_keys[i], other, &y);
    if (x.failed || y.failed)
        l->no_memory = true;
    else if (strcmp(x.s, y.s) != 0)
        diag_add(&l->d, "%s: %s is %s, but %s: %s is %s: give one of them",
                 where, name, y.s, s->where, s->name, x.s);
    base_str_free(&x);
    base_str_free(&y);
}

static void set_key(loading *l, int64_t i, const char *name, const char *text,
                    const char *where, bool cli)
{
    const recipe_key *key = &recipe_keys[i];
    source *s = &l->source[i];
    train_recipe scratch = {0};
    base_str why = {0};
    if (!recipe_read(key, text, &scratch, &why)) {
        diag_add(&l->d, "%s: %s: %s", where, name, why.s ? why.s : "bad");
        s->bad = true;
        base_str_free(&why);
        return;
    }
    base_str_free(&why);
    /* An override beats the file; of two overrides with the same spelling the
     * later wins, as on every command line. */
    bool again = s->set && s->cli == cli;
    if (again && !(cli && !strcmp(s->name, name))) {
        compare(l, i, name, where, &scratch);
        recipe_clear(key, &scratch);
        return;
    }
    recipe_clear(key, l->r);
    forget(s);
    *s = (source){.set = true, .cli = cli};
    s->name = base_strdup(name);
    s->where = base_strdup(where);
    l->no_memory |= !s->name || !s->where;
    recipe_clear(key, &scratch);
    if (!recipe_read(key, text, l->r, &why))
        l->no_memory = true;
    base_str_free(&why);
}

/* "null" means: as if the key were not there. */
static void set_named(loading *l, const char *name, const char *text, bool null,
                      const char *key_place, const char *value_place, bool cli)
{
    int64_t i = recipe_find(name);
    if (i < 0)
        unknown_key(l, name, key_place);
    else if (!null)
        set_key(l, i, name, text, value_place, cli);
    else if (cli) {
        recipe_clear(&recipe_keys[i], l->r);
        forget(&l->source[i]);
    }
}

/* columns: "prompt=question,completion=answer" */
static void set_columns(loading *l, const char *text, const char *where,
                        bool cli)
{
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ","), eq = strcspn(p, "=,");
        base_str name = {0}, value = {0};
        base_str_printf(&name, "columns.%.*s", (int)eq, p);
        if (eq < len)
            base_str_add(&value, p + eq + 1, len - eq - 1);
        if (name.failed || value.failed)
            l->no_memory = true;
        else if (eq == len || eq + 1 == len)
            diag_add(&l->d, "%s: columns: '%.*s' is not like prompt=question",
                     where, (int)len, p);
        else
            set_named(l, name.s, value.s, false, where, where, cli);
        base_str_free(&name);
        base_str_free(&value);
        p += len + (p[len] == ',');
    }
}

/* ---- the file ------------------------------------------------------- */

/* The items of a YAML list as "a,b,c". */
static bool join_items(loading *l, const format_yaml_node *node, base_str *out)
{
    for (size_t i = 0; i < node->n_children; i++) {
        const format_yaml_node *item = &node->children[i];
        if (item->kind != FORMAT_YAML_SCALAR)
            return false;
        base_str_printf(out, "%s%s", i ? "," : "", item->text);
    }
    if (out->failed)
        l->no_memory = true;
    return node->n_children > 0 && !out->failed;
}

static void file_value(loading *l, const char *name,
                       const format_yaml_node *node, const char *key_place,
                       const char *value_place)
{
    int64_t i = recipe_find(name);
    if (node->kind == FORMAT_YAML_SCALAR) {
        bool null = !node->quoted && is_null(node->text);
        set_named(l, name, node->text, null, key_place, value_place, false);
        return;
    }
    if (i < 0) {
        unknown_key(l, name, key_place);
        return;
    }
    base_str items = {0};
    if (recipe_keys[i].type == RECIPE_LIST && node->kind == FORMAT_YAML_LIST &&
        join_items(l, node, &items))
        set_key(l, i, name, items.s, value_place, false);
    else {
        l->source[i].bad = true;
        diag_add(&l->d, "%s: %s: expected %s, not a %s", value_place, name,
                 recipe_keys[i].type == RECIPE_LIST ? "a list of names"
                                                    : "one value",
                 node->kind == FORMAT_YAML_LIST ? "list" : "map");
    }
    base_str_free(&items);
}

static void file_map(loading *l, const format_yaml_node *map,
                     const char *prefix, bool top)
{
    for (size_t i = 0; i < map->n_children; i++) {
        const format_yaml_node *node = &map->children[i];
        base_str name = {0}, kp = {0}, vp = {0};
        base_str_printf(&name, "%s%s", prefix, node->key);
        place(l, node->key_line, node->key_column, &kp);
        place(l, node->line, node->column, &vp);
        if (name.failed || kp.failed || vp.failed)
            l->no_memory = true;
        else if (top && recipe_is_group(name.s) &&
                 node->kind == FORMAT_YAML_MAP)
            file_map(l, node, "", false);
        else if (top && recipe_is_group(name.s) &&
                 node->kind == FORMAT_YAML_SCALAR && is_null(node->text))
            ; /* a group whose keys are all commented out */
        else if (!*prefix && !strcmp(name.s, "columns")) {
            if (node->kind == FORMAT_YAML_MAP)
                file_map(l, node, "columns.", false);
            else if (node->kind == FORMAT_YAML_SCALAR && !is_null(node->text))
                set_columns(l, node->text, vp.s, false);
            else if (node->kind == FORMAT_YAML_LIST)
                diag_add(&l->d, "%s: columns: expected a map, not a list",
                         vp.s);
        } else
            file_value(l, name.s, node, kp.s, vp.s);
        base_str_free(&name);
        base_str_free(&kp);
        base_str_free(&vp);
    }
}

static lori_status read_file(loading *l, lori_error *err)
{
    format_yaml_node *root = NULL;
    BASE_TRY(format_yaml_load(l->file, &root, err));
    if (root->kind == FORMAT_YAML_MAP)
        file_map(l, root, "", true);
    else if (root->kind == FORMAT_YAML_LIST || !is_null(root->text))
        diag_add(&l->d,
                 "%s:%d:%d: a recipe is a map of keys, like "
                 "learning_rate: 2e-4",
                 l->file, root->line, root->column);
    format_yaml_free(root);
    return LORI_OK;
}

/* ---- overrides ------------------------------------------------------ */

/* "optim.learning-rate" -> "learning_rate", in place; the rest is borrowed. */
static const char *plain_name(char *name)
{
    while (*name == '-')
        name++;
    for (char *p = name; *p; p++)
        if (*p == '-')
            *p = '_';
    char *dot = strchr(name, '.');
    if (dot) {
        *dot = '\0';
        if (recipe_is_group(name))
            return dot + 1;
        *dot = '.';
    }
    return name;
}

static void read_override(loading *l, const char *text)
{
    const char *eq = strchr(text, '=');
    if (!eq || eq == text) {
        diag_add(&l->d, "%s: '%s' is not like learning_rate=2e-4", command_line,
                 text);
        return;
    }
    char *whole = base_strndup(text, (size_t)(eq - text));
    if (!whole) {
        l->no_memory = true;
        return;
    }
    const char *name = plain_name(whole), *value = eq + 1;
    if (!strcmp(name, "columns"))
        set_columns(l, value, command_line, true);
    else
        set_named(l, name, value, is_null(value), command_line, command_line,
                  true);
    free(whole);
}

/* ---- the whole ------------------------------------------------------ */

/* Where `name` was set; the file or the command line when it was not. */
static const char *where(const loading *l, const char *name)
{
    const source *s = &l->source[recipe_find(name)];
    return s->where ? s->where : l->file ? l->file : command_line;
}

static bool is_set(const loading *l, const char *name)
{
    return l->source[recipe_find(name)].set;
}

static bool is_bad(const loading *l, const char *name)
{
    return l->source[recipe_find(name)].bad;
}

static void fill_defaults(loading *l)
{
    train_recipe *r = l->r;
    base_str why = {0};
    for (int64_t i = 0; i < recipe_n_keys; i++) {
        const recipe_key *key = &recipe_keys[i];
        const source *s = &l->source[i];
        if (!s->set && key->preset && !recipe_read(key, key->preset, r, &why))
            l->no_memory = true;
        if (key->required && !s->set && !s->bad)
            diag_add(&l->d, "%s: %s is missing",
                     l->file ? l->file : command_line, key->name);
    }
    base_str_free(&why);
    if (!is_set(l, "lora_alpha"))
        r->lora_alpha = 2.0 * (double)r->lora_rank;
    if (!is_set(l, "lori_phase"))
        r->phase = r->lori_mask_path ? TRAIN_SPARSE : TRAIN_DENSE;
}

static void check_targets(loading *l)
{
    const train_recipe *r = l->r;
    for (int64_t i = 0; i < r->n_targets; i++) {
        const char *name = r->lora_target_modules[i];
        bool known = false;
        for (int k = 0; k < MODEL_ROLES; k++)
            known |= !strcmp(name, model_role_names[k]);
        if (known)
            continue;
        const char *near = base_nearest(name, model_role_names, MODEL_ROLES);
        diag_add(&l->d, "%s: lora_target_modules: unknown module '%s'%s%s%s",
                 where(l, "lora_target_modules"), name,
                 near ? "; did you mean '" : "", near ? near : "",
                 near ? "'?"
                      : "; known are q_proj, k_proj, v_proj, o_proj, "
                        "gate_proj, up_proj, down_proj");
    }
}

static void check_method(loading *l)
{
    const train_recipe *r = l->r;
    bool mask = r->lori_mask_path != NULL;
    if (is_bad(l, "method") || is_bad(l, "lori_phase"))
        return;
    if (r->method == TRAIN_LORA && mask)
        diag_add(&l->d, "%s: lori_mask_path: a mask needs method: lori",
                 where(l, "lori_mask_path"));
    else if (r->phase == TRAIN_SPARSE && !mask)
        diag_add(&l->d,
                 "%s: lori_phase: sparse needs lori_mask_path, a mask made by "
                 "'lori mask' from a LoRI-D adapter",
                 where(l, "lori_phase"));
    else if (r->phase == TRAIN_DENSE && mask)
        diag_add(&l->d,
                 "%s: lori_phase: dense has no use for lori_mask_path; remove "
                 "one of them",
                 where(l, "lori_phase"));
    if (r->adapter_name_or_path && r->has_a_seed)
        diag_add(&l->d,
                 "%s: lori_a_seed: adapter_name_or_path brings its own A; "
                 "remove one of them",
                 where(l, "lori_a_seed"));
}

static void check_rest(loading *l)
{
    const train_recipe *r = l->r;
    if (r->warmup_steps > 0 && r->warmup_ratio > 0)
        diag_add(&l->d,
                 "%s: warmup_ratio: give warmup_steps or warmup_ratio, not "
                 "both",
                 where(l, "warmup_ratio"));
    if (r->max_steps == 0)
        diag_add(&l->d,
                 "%s: max_steps: 0 would train nothing; -1 takes them from "
                 "num_train_epochs",
                 where(l, "max_steps"));
    const char *fact = rows_check_columns(&r->columns, r->prompt_template);
    if (fact)
        diag_add(&l->d, "%s: columns: %s", l->file ? l->file : command_line,
                 fact);
    fact = rows_check_template(r->prompt_template);
    if (fact)
        diag_add(&l->d, "%s: prompt_template: %s", where(l, "prompt_template"),
                 fact);
    if (r->chat_template && !r->apply_chat_template)
        diag_add(&l->d,
                 "%s: chat_template is not used; set apply_chat_template too",
                 where(l, "chat_template"));
}

static lori_status load(loading *l, const char *const *overrides, int64_t n,
                        lori_error *err)
{
    if (l->file)
        BASE_TRY(read_file(l, err));
    for (int64_t i = 0; i < n; i++)
        read_override(l, overrides[i]);
    fill_defaults(l);
    check_targets(l);
    check_method(l);
    check_rest(l);
    if (l->no_memory)
        return base_no_memory(err, 1);
    return diag_end(&l->d, LORI_INVALID, err);
}

lori_status train_recipe_load(const char *path, const char *const *overrides,
                              int64_t n_overrides, train_recipe *out,
                              lori_error *err)
{
    *out = (train_recipe){0};
    source *sources = base_alloc((size_t)recipe_n_keys, sizeof *sources);
    if (!sources)
        return base_no_memory(err, (size_t)recipe_n_keys * sizeof *sources);
    loading l = {.file = path, .r = out, .source = sources};
    lori_status st = load(&l, overrides, n_overrides, err);
    base_str_free(&l.d.lines);
    for (int64_t i = 0; i < recipe_n_keys; i++)
        forget(&sources[i]);
    free(sources);
    if (st)
        train_recipe_free(out);
    return st;
}

void train_recipe_free(train_recipe *recipe)
{
    if (!recipe)
        return;
    for (int64_t i = 0; i < recipe_n_keys; i++)
        recipe_clear(&recipe_keys[i], recipe);
    *recipe = (train_recipe){0};
}
