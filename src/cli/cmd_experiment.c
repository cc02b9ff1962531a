/* cmd_experiment.c - `lori run`: a recipe of many stages. */
#include "cli/cli.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *run_about =
    "Runs a recipe: trains adapters for several tasks, makes masks, merges and "
    "continual\npairs, evaluates all and prints the table. What is done and "
    "valid is skipped, what was\nstopped goes on: give the command again. "
    "key=value words are keys of `lori train` for\nevery training.";

int cmd_run(int argc, char **argv)
{
    lori_run_options o = {.hub_cache = cli_hub_cache(), .isa = cli_isa()};
    bool json = false, dry_run = false;
    cli_list overrides = {0};
    const cli_option options[] = {
        {"model", CLI_TEXT, &o.model, "DIR", "model_name_or_path"},
        {"output", CLI_TEXT, &o.output, "DIR", "output_dir"},
        {"data-dir", CLI_TEXT, &o.data_dir, "DIR", "data_dir"},
        {"dry-run", CLI_FLAG, &dry_run, NULL, "print the plan, run nothing"}};
    int code = cli_parse(
        &(cli_syntax){"lori run RECIPE.yaml [key=value ...] [options]",
                      run_about, options, COUNT(options), &o.recipe, 1, 1,
                      &overrides},
        argc, argv, &json);
    if (code < 0) {
        lori_error err = {0};
        lori_report *report = NULL;
        o.overrides = (const char *const *)overrides.items;
        o.n_overrides = overrides.n;
        o.dry_run = dry_run;
        lori_status st = lori_run(&o, cli_ui(), &report, &err);
        code = cli_finish(st, report, &err, json);
    }
    cli_list_free(&overrides);
    return code;
}
