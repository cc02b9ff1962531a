/* cmd_pull.c - `lori pull`: a model of the hub into the local cache. */
#include "cli/cli.h"

#include <stdio.h>

static int run_pull(lori_pull_options *o, const char *token_file, bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    if (cli_hub_offline()) {
        fputs("lori: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it "
              "to pull\n",
              stderr);
        return EXIT_FAILED;
    }
    if (!cli_hub_token(token_file, &o->token))
        return EXIT_USAGE;
    if (!o->endpoint)
        o->endpoint = cli_hub_endpoint();
    o->hub_cache = cli_hub_cache();
    lori_status st = lori_pull(o, cli_ui(), &report, &err);
    return cli_finish(st, report, &err, json);
}

int cmd_pull(int argc, char **argv)
{
    lori_pull_options o = {0};
    bool json = false;
    const char *words[1] = {0}, *token_file = NULL;
    cli_list include = {0}, exclude = {0};
    const cli_option options[] = {
        {"revision", CLI_TEXT, &o.revision, "REV",
         "branch, tag or commit (main)"},
        {"include", CLI_LIST, &include, "PATTERN",
         "only files like '*.gguf'; several times"},
        {"exclude", CLI_LIST, &exclude, "PATTERN", "but none like this"},
        {"token-file", CLI_TEXT, &token_file, "FILE",
         "token for private and gated models (HF_TOKEN, HF_HOME/token)"},
        {"endpoint", CLI_TEXT, &o.endpoint, "URL",
         "a mirror (HF_ENDPOINT, https://huggingface.co)"}};
    int code = cli_parse(
        &(cli_syntax){"lori pull ORG/NAME [options]",
                      "Downloads what is needed to run a model or adapter into "
                      "Hugging Face's cache.\nAll commands then take ORG/NAME "
                      "where they take a folder. An interrupted pull\nis "
                      "continued by the next one.",
                      options, sizeof options / sizeof *options, words, 1, 1,
                      NULL},
        argc, argv, &json);
    o.name = words[0];
    o.include = (const char *const *)include.items;
    o.n_include = include.n;
    o.exclude = (const char *const *)exclude.items;
    o.n_exclude = exclude.n;
    if (code < 0)
        code = run_pull(&o, token_file, json);
    cli_list_free(&include);
    cli_list_free(&exclude);
    return code;
}
