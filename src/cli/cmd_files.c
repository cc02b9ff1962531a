/* cmd_files.c - the commands that read and write folders: import, mask,
 * merge, inspect, env. */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

int cmd_import(int argc, char **argv)
{
    lori_import_options o = {0};
    bool json = false, replace = false, tokenizer = false;
    const char *words[2] = {0};
    const cli_option options[] = {
        {"dtype", CLI_DTYPE, &o.dtype, "bf16|f32", "of the weights (bf16)"},
        {"tokenizer", CLI_FLAG, &tokenizer, NULL,
         "SOURCE is tokenizer.model, tekken.json or their folder"},
        {"replace", CLI_FLAG, &replace, NULL, "replace an existing model"}};
    int code = cli_parse(
        &(cli_syntax){"lori import MODEL.gguf OUT [options]",
                      "Makes a complete Hugging Face folder of a GGUF file: "
                      "weights, config, tokenizer,\nchat template. With "
                      "--tokenizer, makes tokenizer.json of SentencePiece,\n"
                      "tiktoken (Llama 3) and tekken files.",
                      options, COUNT(options), words, 2, 2, NULL},
        argc, argv, &json);
    if (code >= 0)
        return code;
    o.source = words[0];
    o.output = words[1];
    o.replace = replace;
    o.tokenizer_only = tokenizer;
    lori_error err = {0};
    lori_report *report = NULL;
    lori_status st = lori_import(&o, cli_ui(), &report, &err);
    return cli_finish(st, report, &err, json);
}

int cmd_mask(int argc, char **argv)
{
    lori_mask_options o = {0};
    bool json = false, replace = false;
    const char *words[2] = {0};
    const cli_option options[] = {
        {"sparsity", CLI_REAL, &o.sparsity, "S", "share of B left out (0.9)"},
        {"replace", CLI_FLAG, &replace, NULL, "replace an existing mask"}};
    int code = cli_parse(
        &(cli_syntax){"lori mask ADAPTER OUT [options]",
                      "Keeps the largest |B| of the whole adapter: the entries "
                      "that LoRI-S trains.",
                      options, COUNT(options), words, 2, 2, NULL},
        argc, argv, &json);
    if (code >= 0)
        return code;
    o.adapter = words[0];
    o.output = words[1];
    o.replace = replace;
    lori_error err = {0};
    lori_report *report = NULL;
    o.hub_cache = cli_hub_cache();
    lori_status st = lori_mask(&o, cli_ui(), &report, &err);
    return cli_finish(st, report, &err, json);
}

/* "0.5,0.5" into n numbers. */
static bool read_weights(const char *text, double *weights, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        char *end = NULL;
        errno = 0;
        weights[i] = strtod(text, &end);
        if (errno || end == text || *end != (i + 1 < n ? ',' : '\0'))
            return false;
        text = end + 1;
    }
    return true;
}

static int run_merge(lori_merge_options *o, const cli_list *adapters,
                     const char *weights, bool json)
{
    double *w = calloc((size_t)adapters->n + 1, sizeof *w);
    o->adapters = (const char *const *)adapters->items;
    o->n_adapters = adapters->n;
    o->weights = weights ? w : NULL;
    lori_error err = {0};
    lori_report *report = NULL;
    if (!w || (weights && !read_weights(weights, w, adapters->n))) {
        fprintf(stderr,
                "lori: --weights takes %lld numbers separated by commas, one "
                "an adapter, not '%s'\n",
                (long long)adapters->n, weights ? weights : "");
        free(w);
        return EXIT_USAGE;
    }
    o->hub_cache = cli_hub_cache();
    lori_status st = lori_merge(o, cli_ui(), &report, &err);
    free(w);
    return cli_finish(st, report, &err, json);
}

int cmd_merge(int argc, char **argv)
{
    lori_merge_options o = {0};
    bool json = false, replace = false;
    cli_list adapters = {0};
    const char *method = "cat", *weights = NULL;
    const cli_option options[] = {
        {"adapter", CLI_LIST, &adapters, "DIR", "an adapter; several times"},
        {"weights", CLI_TEXT, &weights, "W,W", "one number an adapter (1)"},
        {"method", CLI_TEXT, &method, "cat|linear",
         "cat: exact sum, ranks add up; linear: same rank, cross terms"},
        {"into", CLI_TEXT, &o.into, "BASE", "merge into this base model"},
        {"output", CLI_TEXT, &o.output, "DIR", "folder to write"},
        {"dtype", CLI_DTYPE, &o.dtype, "bf16|f32",
         "of a merged model's weights (the base's own)"},
        {"replace", CLI_FLAG, &replace, NULL, "replace an existing folder"}};
    int code = cli_parse(
        &(cli_syntax){"lori merge --adapter DIR [--adapter DIR ...] --output "
                      "DIR [--into BASE] [options]",
                      "Makes one adapter of several, or with --into a complete "
                      "model folder.",
                      options, COUNT(options), NULL, 0, 0, NULL},
        argc, argv, &json);
    if (code < 0 && strcmp(method, "cat") && strcmp(method, "linear")) {
        fprintf(stderr, "lori: --method is cat or linear, not '%s'\n", method);
        code = EXIT_USAGE;
    }
    o.method = strcmp(method, "linear") ? LORI_MERGE_CAT : LORI_MERGE_LINEAR;
    o.replace = replace;
    if (code < 0)
        code = run_merge(&o, &adapters, weights, json);
    cli_list_free(&adapters);
    return code;
}

int cmd_inspect(int argc, char **argv)
{
    lori_inspect_options o = {0};
    bool json = false;
    const cli_option options[] = {
        {"base", CLI_TEXT, &o.base, "PATH", "model folder or a config.json"},
        {"adapter", CLI_TEXT, &o.adapter, "DIR", "adapter folder"},
        {"mask", CLI_TEXT, &o.mask, "DIR", "mask folder"},
        {"lora-rank", CLI_INT, &o.lora_rank, "R", "count for this rank (32)"},
        {"sparsity", CLI_REAL, &o.sparsity, "S", "count for this one (0.9)"}};
    int code = cli_parse(
        &(cli_syntax){"lori inspect [--base PATH] [--adapter DIR] [--mask DIR]",
                      "Sizes and facts, counted from the files; a base needs "
                      "its config.json only.",
                      options, COUNT(options), NULL, 0, 0, NULL},
        argc, argv, &json);
    if (code >= 0)
        return code;
    lori_error err = {0};
    lori_report *report = NULL;
    o.hub_cache = cli_hub_cache();
    lori_status st = lori_inspect(&o, &report, &err);
    return cli_finish(st, report, &err, json);
}

int cmd_env(int argc, char **argv)
{
    bool json = false;
    int code = cli_parse(&(cli_syntax){"lori env",
                                       "Version, processor and libraries in "
                                       "use.",
                                       NULL, 0, NULL, 0, 0, NULL},
                         argc, argv, &json);
    if (code >= 0)
        return code;
    lori_error err = {0};
    lori_report *report = NULL;
    lori_status st = lori_env(cli_isa(), &report, &err);
    return cli_finish(st, report, &err, json);
}
