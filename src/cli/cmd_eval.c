/* cmd_eval.c - the command that evaluates models on tasks. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *eval_about =
    "Evaluates a base model, or adapters over it, on tasks: YAML files or "
    "presets\n(--list shows them, --preset NAME prints one as YAML). With "
    "--output a stopped run\ngoes on where it was when the command is given "
    "again.";

static int print_presets(const char *name, bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    lori_status st = lori_eval_presets(name, &report, &err);
    return cli_finish(st, report, &err, json);
}

/* "NAME=FOLDER" or "FOLDER" of each word; NULL when out of memory. */
static lori_named_adapter *split_adapters(const cli_list *words)
{
    lori_named_adapter *list = calloc((size_t)words->n + 1, sizeof *list);
    for (int64_t i = 0; list && i < words->n; i++) {
        char *word = words->items[i], *eq = strchr(word, '=');
        char *slash = strchr(word, '/');
        bool named = eq && (!slash || slash > eq);
        if (named)
            *eq = 0;
        list[i] =
            (lori_named_adapter){named ? word : NULL, named ? eq + 1 : word};
    }
    return list;
}

int cmd_eval(int argc, char **argv)
{
    lori_eval_options o = {0};
    cli_list adapters = {0}, tasks = {0};
    bool json = false, base = false, list = false, samples = false,
         overwrite = false;
    int64_t threads = 0;
    const char *preset = NULL;
    const cli_option options[] = {
        {"model", CLI_TEXT, &o.model, "DIR", "base model folder"},
        {"adapter", CLI_LIST, &adapters, "[NAME=]DIR", "a row; repeatable"},
        {"base", CLI_FLAG, &base, NULL, "a row for the base, beside adapters"},
        {"task", CLI_LIST, &tasks, "NAME|FILE", "a column; repeatable"},
        {"data-dir", CLI_TEXT, &o.data_dir, "DIR", "the presets' data files"},
        {"limit", CLI_INT, &o.limit, "N", "first N rows of each task (all)"},
        {"output", CLI_TEXT, &o.output, "DIR", "results, and state to resume"},
        {"log-samples", CLI_FLAG, &samples, NULL,
         "keep prompts and completions there"},
        {"overwrite", CLI_FLAG, &overwrite, NULL,
         "replace results of other settings"},
        {"batch-size", CLI_INT, &o.batch_size, "N", "texts at once (16)"},
        {"dtype", CLI_DTYPE, &o.dtype, "bf16|f32", "to compute in (bf16)"},
        {"threads", CLI_INT, &threads, "N", "(all processors)"},
        {"list", CLI_FLAG, &list, NULL, "list the presets"},
        {"preset", CLI_TEXT, &preset, "NAME", "print a preset's YAML"}};
    int code = cli_parse(
        &(cli_syntax){"lori eval --model DIR --task TASK ... [options]",
                      eval_about, options, COUNT(options), NULL, 0, 0, NULL},
        argc, argv, &json);
    if (code < 0 && (list || preset))
        code = print_presets(preset, json);
    if (code < 0) {
        lori_error err = {0};
        lori_report *report = NULL;
        lori_named_adapter *named = split_adapters(&adapters);
        o.adapters = named;
        o.n_adapters = named ? adapters.n : 0;
        o.hub_cache = cli_hub_cache();
        o.tasks = (const char *const *)tasks.items;
        o.n_tasks = tasks.n;
        o.base = base;
        o.log_samples = samples;
        o.overwrite = overwrite;
        o.n_threads = (int)threads;
        o.isa = cli_isa();
        if (!named)
            code = EXIT_FAILED;
        lori_status st = lori_eval(&o, cli_ui(), &report, &err);
        free(named);
        code = cli_finish(st, report, &err, json);
    }
    cli_list_free(&adapters);
    cli_list_free(&tasks);
    return code;
}
