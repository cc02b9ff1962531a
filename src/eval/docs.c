/* docs.c - the rows of a task's data file as documents: prompts with few-shot
 * examples, targets, choices. Collects what is wrong with rows. Includes
 * eval_i.h. */
#include <stdlib.h>

#include "eval/eval_i.h"

#define DIAG_LINES 20

typedef struct loading {
    const eval_task *task;
    const char *path;
    int64_t limit; /* rows wanted; 0: all */
    eval_docs *docs;
    size_t room;
    base_str *shots; /* rows become few-shot text here, not documents */
    int64_t n_shots;
    const char *examples; /* text in front of every prompt */
    base_diag d;
} loading;

/* ---- where the data are ----------------------------------------------- */

/* Beside the task's file, or in the data folder; malloc'd. */
static lori_status data_path(const eval_task *t, const char *file,
                             const char *data_dir, char **out, lori_error *err)
{
    *out = NULL;
    const char *places[] = {*file == '/' ? "" : t->folder,
                            *file == '/' ? NULL : data_dir};
    for (int i = 0; i < 2; i++) {
        if (!places[i])
            continue;
        char *path =
            *file == '/' ? base_strdup(file) : base_path_join(places[i], file);
        if (!path)
            return base_no_memory(err, strlen(file));
        if (base_is_file(path)) {
            *out = path;
            return LORI_OK;
        }
        free(path);
    }
    if (!data_dir && !t->folder)
        return base_fail(err, LORI_INVALID,
                         "%s: its rows are the file %s of a data folder: name "
                         "that folder with --data-dir",
                         t->source, file);
    return base_fail(err, LORI_NOT_FOUND, "%s: data file '%s' is not in %s%s%s",
                     t->source, file, t->folder ? t->folder : data_dir,
                     t->folder && data_dir ? " and not in " : "",
                     t->folder && data_dir ? data_dir : "");
}

/* ---- choices ------------------------------------------------------------ */

static bool add_choice(eval_doc *doc, base_str *text)
{
    char *s = base_str_take(text);
    if (!s)
        return false;
    doc->choices[doc->n_choices++] = s;
    return true;
}

/* A field that holds a list of texts. */
static bool field_choices(loading *l, eval_doc *doc, const json_t *row,
                          const char *place)
{
    const char *name = l->task->doc_to_choice[0];
    const json_t *list = template_value(row, name);
    size_t n = json_array_size(list);
    if (n < 2) {
        base_diag_add(&l->d,
                      "%s: field '%s' is %s, a list of two or more "
                      "texts is needed",
                      place, name,
                      json_is_array(list) ? "too short a list"
                                          : format_json_kind(list));
        return false;
    }
    doc->choices = base_alloc(n, sizeof *doc->choices);
    for (size_t i = 0; doc->choices && i < n; i++) {
        const json_t *item = json_array_get(list, i);
        base_str text = {0};
        base_str_puts(&text,
                      json_is_string(item) ? json_string_value(item) : "");
        if (!json_is_string(item)) {
            base_diag_add(&l->d, "%s: choice %zu of '%s' is %s, not a text",
                          place, i + 1, name, format_json_kind(item));
            base_str_free(&text);
            return false;
        }
        if (!add_choice(doc, &text))
            return false;
    }
    return doc->choices != NULL;
}

static bool template_choices(loading *l, eval_doc *doc, const json_t *row,
                             const char *place)
{
    size_t n = (size_t)l->task->n_choices;
    doc->choices = base_alloc(n, sizeof *doc->choices);
    bool fine = doc->choices != NULL;
    for (size_t i = 0; fine && i < n; i++) {
        base_str text = {0};
        base_str_puts(&text, "");
        fine = template_fill(l->task->doc_to_choice[i], row, place, &text,
                             &l->d) &&
               add_choice(doc, &text);
        if (!fine)
            base_str_free(&text);
    }
    return fine;
}

/* An integer field, or failing that a text of digits, is an index; a text is
 * looked for among the choices. */
static bool find_gold(loading *l, eval_doc *doc, const json_t *row,
                      const char *place)
{
    char *name = template_field(l->task->doc_to_target);
    const json_t *value = name ? template_value(row, name) : NULL;
    free(name);
    doc->gold = -1;
    for (int64_t i = 0; i < doc->n_choices && !json_is_integer(value); i++)
        if (doc->gold < 0 && !strcmp(doc->choices[i], doc->target))
            doc->gold = i;
    if (doc->gold < 0 && *doc->target &&
        strspn(doc->target, "0123456789") == strlen(doc->target) &&
        strlen(doc->target) < 10)
        doc->gold = strtoll(doc->target, NULL, 10);
    if (doc->gold >= 0 && doc->gold < doc->n_choices)
        return true;
    base_diag_add(&l->d,
                  "%s: target '%.60s' is none of the %lld choices, nor the "
                  "number of one (from 0)",
                  place, doc->target, (long long)doc->n_choices);
    return false;
}

/* ---- rows --------------------------------------------------------------- */

static void doc_free(eval_doc *doc)
{
    for (int64_t i = 0; i < doc->n_choices; i++)
        free(doc->choices[i]);
    free(doc->choices);
    free(doc->prompt);
    free(doc->target);
}

/* False when something is wrong; then it is in l->d, or memory ran out. */
static bool render(loading *l, const json_t *row, const char *place,
                   eval_doc *doc)
{
    const eval_task *t = l->task;
    base_str prompt = {0}, target = {0};
    base_str_puts(&prompt, l->examples ? l->examples : "");
    base_str_puts(&target, "");
    bool fine = template_fill(t->doc_to_text, row, place, &prompt, &l->d);
    fine &= template_fill(t->doc_to_target, row, place, &target, &l->d);
    doc->prompt = base_str_take(&prompt);
    doc->target = base_str_take(&target);
    if (!fine || !doc->prompt || !doc->target)
        return false;
    if (t->kind == EVAL_ROLLING && !*doc->target)
        base_diag_add(&l->d, "%s: the text to score is empty", place);
    bool good =
        t->compare != EVAL_EXPRESSION || expression_tests_good(doc->target);
    if (!good)
        base_diag_add(&l->d,
                      "%s: target '%.60s' is no list of tests like x=3 y=5: 8; "
                      "x=1 y=0: 1",
                      place, doc->target);
    if (!good)
        return false;
    if (t->kind != EVAL_CHOICE)
        return t->kind != EVAL_ROLLING || *doc->target;
    return (t->choices_are_field ? field_choices
                                 : template_choices)(l, doc, row, place) &&
           find_gold(l, doc, row, place);
}

static bool add_shot(loading *l, const eval_doc *doc)
{
    const eval_task *t = l->task;
    base_str_puts(l->shots, doc->prompt);
    base_str_puts(l->shots, t->target_delimiter);
    base_str_puts(l->shots,
                  doc->choices ? doc->choices[doc->gold] : doc->target);
    base_str_puts(l->shots, t->fewshot_delimiter);
    l->n_shots++;
    return !l->shots->failed;
}

static lori_status keep_doc(loading *l, const eval_doc *doc, lori_error *err)
{
    eval_docs *docs = l->docs;
    if ((size_t)docs->n == l->room) {
        size_t room = l->room ? l->room * 2 : 256;
        eval_doc *grown = base_resize(docs->doc, room, sizeof *grown);
        if (!grown)
            return base_no_memory(err, room * sizeof *grown);
        docs->doc = grown;
        l->room = room;
    }
    docs->doc[docs->n++] = *doc;
    return LORI_OK;
}

static lori_status on_row(void *context, int64_t line, const json_t *row,
                          lori_error *err)
{
    loading *l = context;
    int64_t have = l->shots ? l->n_shots : l->docs->n;
    if (l->limit > 0 && have >= l->limit)
        return LORI_OK;
    base_str place = {0};
    base_str_printf(&place, "%s:%lld", l->path, (long long)line);
    eval_doc doc = {.line = line};
    int64_t facts = l->d.n;
    bool fine = !place.failed && render(l, row, place.s, &doc);
    lori_status st = LORI_OK;
    if (fine && !l->shots)
        st = keep_doc(l, &doc, err);
    else if ((fine && !add_shot(l, &doc)) || (!fine && l->d.n == facts))
        st = base_no_memory(err, place.len);
    if (!fine || l->shots || st)
        doc_free(&doc);
    base_str_free(&place);
    return st;
}

static lori_status read_rows(loading *l, const char *file, const char *data_dir,
                             char **path, lori_error *err)
{
    BASE_TRY(data_path(l->task, file, data_dir, path, err));
    l->path = *path;
    l->d = (base_diag){.max = DIAG_LINES};
    lori_status st = format_rows_read(*path, on_row, l, err);
    if (st) {
        base_str_free(&l->d.lines);
        return st;
    }
    return base_diag_end(&l->d, LORI_FORMAT, err);
}

static lori_status read_shots(const eval_task *t, const char *data_dir,
                              base_str *shots, lori_error *err)
{
    char *path = NULL;
    loading l = {.task = t, .limit = t->num_fewshot, .shots = shots};
    lori_status st = read_rows(&l, t->fewshot_file, data_dir, &path, err);
    if (!st && l.n_shots < t->num_fewshot)
        st = base_fail(
            err, LORI_INVALID, "%s: num_fewshot is %lld, but %s has %lld rows",
            t->source, (long long)t->num_fewshot, path, (long long)l.n_shots);
    free(path);
    return st;
}

static uint64_t hash_text(uint64_t hash, const char *s)
{
    return base_fnv1a(hash, s, strlen(s) + 1);
}

static uint64_t hash_docs(const eval_docs *docs)
{
    uint64_t hash = BASE_FNV_START;
    for (int64_t i = 0; i < docs->n; i++) {
        const eval_doc *doc = &docs->doc[i];
        hash = hash_text(hash_text(hash, doc->prompt), doc->target);
        for (int64_t k = 0; k < doc->n_choices; k++)
            hash = hash_text(hash, doc->choices[k]);
        hash = base_fnv1a(hash, &doc->gold, sizeof doc->gold);
    }
    return hash;
}

/* A target in which the task's own rule finds nothing can never be met. */
static lori_status check_targets(const eval_task *t, const eval_docs *docs,
                                 const lori_ui *ui, lori_error *err)
{
    base_str answer = {0};
    int64_t without = 0, first = 0;
    lori_status st = LORI_OK;
    for (int64_t i = 0; i < docs->n && !st; i++) {
        const char *target = docs->doc[i].target;
        bool found;
        st = eval_find_target(t, target, &answer, &found, err);
        if (!st && !found && without++ == 0)
            first = docs->doc[i].line;
    }
    base_str_free(&answer);
    if (!st && without == docs->n)
        st = base_fail(err, LORI_INVALID,
                       "%s: extract finds no answer in any target of %s; what "
                       "it finds in a completion could never be right",
                       t->source, docs->path);
    else if (!st && without)
        base_log(ui, LORI_LOG_WARNING,
                 "%s: extract finds no answer in %lld of %lld targets (the "
                 "first is %s:%lld): they count as wrong",
                 t->source, (long long)without, (long long)docs->n, docs->path,
                 (long long)first);
    return st;
}

static lori_status load(const eval_task *t, const char *data_dir, int64_t limit,
                        const lori_ui *ui, eval_docs *docs, lori_error *err)
{
    base_str shots = {0};
    loading l = {
        .task = t, .limit = limit > 0 ? limit : t->limit, .docs = docs};
    lori_status st = LORI_OK;
    if (t->num_fewshot > 0)
        st = read_shots(t, data_dir, &shots, err);
    l.examples = shots.s;
    if (!st)
        st = read_rows(&l, t->test_file, data_dir, &docs->path, err);
    base_str_free(&shots);
    if (!st && docs->n == 0)
        st = base_fail(err, LORI_INVALID, "%s: has no rows", docs->path);
    if (!st && t->kind == EVAL_GENERATE && t->extract.regex)
        st = check_targets(t, docs, ui, err);
    docs->hash = st ? 0 : hash_docs(docs);
    return st;
}

lori_status eval_docs_load(const eval_task *task, const char *data_dir,
                           int64_t limit, const lori_ui *ui, eval_docs **out,
                           lori_error *err)
{
    *out = NULL;
    eval_docs *docs = base_alloc(1, sizeof *docs);
    if (!docs)
        return base_no_memory(err, sizeof *docs);
    lori_status st = load(task, data_dir, limit, ui, docs, err);
    if (st)
        eval_docs_free(docs);
    else
        *out = docs;
    return st;
}

void eval_docs_free(eval_docs *docs)
{
    if (!docs)
        return;
    for (int64_t i = 0; i < docs->n; i++)
        doc_free(&docs->doc[i]);
    free(docs->doc);
    free(docs->path);
    free(docs);
}
