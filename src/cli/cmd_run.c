/* cmd_run.c - the commands train and score. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *train_about =
    "Trains an adapter as a YAML recipe says. Every key can be given or "
    "overridden as\nkey=value or --key value. On Ctrl-C the adapter so far and "
    "a checkpoint are saved.\nThe keys are listed by `lori train --keys`.";

static int print_keys(bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    lori_status st = lori_train_keys(&report, &err);
    return cli_finish(st, report, &err, json);
}

int cmd_train(int argc, char **argv)
{
    bool json = false, dry_run = false, keys = false;
    const char *words[1] = {0};
    cli_list overrides = {0};
    const cli_option options[] = {
        {"dry-run", CLI_FLAG, &dry_run, NULL,
         "check everything, print the resolved recipe and the planned memory"},
        {"keys", CLI_FLAG, &keys, NULL, "list the recipe keys"}};
    int code = cli_parse(
        &(cli_syntax){"lori train [RECIPE.yaml] [key=value ...] [options]",
                      train_about, options, COUNT(options), words, 1, 0,
                      &overrides},
        argc, argv, &json);
    if (code < 0 && keys)
        code = print_keys(json);
    if (code < 0) {
        lori_train_options o = {.recipe = words[0],
                                .overrides =
                                    (const char *const *)overrides.items,
                                .n_overrides = overrides.n,
                                .dry_run = dry_run};
        lori_error err = {0};
        lori_report *report = NULL;
        o.hub_cache = cli_hub_cache();
        o.isa = cli_isa();
        lori_status st = lori_train(&o, cli_ui(), &report, &err);
        code = cli_finish(st, report, &err, json);
    }
    cli_list_free(&overrides);
    return code;
}

static int run_score(const lori_session_options *open, lori_score_options *o,
                     bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    lori_session *session = NULL;
    const lori_ui *ui = cli_ui();
    lori_status st = lori_session_open(open, ui, &session, &err);
    if (!st)
        st = lori_score(session, o, ui, &report, &err);
    lori_session_close(session);
    return cli_finish(st, report, &err, json);
}

int cmd_score(int argc, char **argv)
{
    lori_session_options open = {0};
    lori_score_options o = {0};
    bool json = false, exact = false;
    int64_t threads = 0;
    const char *ids_text = NULL;
    int32_t *ids = NULL;
    const cli_option options[] = {
        {"model", CLI_TEXT, &open.model, "DIR", "base model folder"},
        {"adapter", CLI_TEXT, &open.adapter, "DIR", "adapter folder"},
        {"dtype", CLI_DTYPE, &open.dtype, "bf16|f32", "to compute in (bf16)"},
        {"threads", CLI_INT, &threads, "N", "(all processors)"},
        {"text", CLI_TEXT, &o.text, "TEXT", "score this text"},
        {"ids", CLI_TEXT, &ids_text, "1,2,3", "or these token ids"},
        {"top", CLI_INT, &o.top, "N", "and the N best next tokens"},
        {"data", CLI_TEXT, &o.data, "FILE", "or a dataset's completions"},
        {"columns", CLI_TEXT, &o.columns, "MAP",
         "\"prompt=question,completion=answer\""},
        {"prompt-template", CLI_TEXT, &o.prompt_template, "TEXT",
         "as in the recipe"},
        {"max-seq-length", CLI_INT, &o.max_seq_length, "N", "(2048)"},
        {"max-samples", CLI_INT, &o.max_samples, "N", "first N rows (all)"},
        {"exact-match", CLI_FLAG, &exact, NULL, "compare greedy answers too"},
        {"max-new-tokens", CLI_INT, &o.max_new_tokens, "N",
         "of such an answer (128)"},
        {"output", CLI_TEXT, &o.output, "FILE", "a JSON line a row"}};
    int code = cli_parse(
        &(cli_syntax){
            "lori score --model DIR (--text TEXT | --ids 1,2 | --data "
            "FILE) [options]",
            "Log-probabilities of a text, or loss and exact match on "
            "a dataset.",
            options, COUNT(options), NULL, 0, 0, NULL},
        argc, argv, &json);
    if (code < 0 && ids_text && !cli_read_ids(ids_text, &ids, &o.n_ids))
        code = cli_bad_ids(ids_text);
    o.ids = ids;
    o.exact_match = exact;
    open.n_threads = (int)threads;
    open.isa = cli_isa();
    open.hub_cache = cli_hub_cache();
    if (code < 0)
        code = run_score(&open, &o, json);
    free(ids);
    return code;
}
