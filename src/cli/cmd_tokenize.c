/* cmd_tokenize.c - tokenize and detokenize: texts or ids from arguments, from
 * files, or from standard input. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
enum { MAX_WORDS = 4096 };

/* All of standard input, NUL-terminated beyond *n; NULL when it fails. */
static char *read_stdin(int64_t *n)
{
    size_t used = 0, cap = 1 << 16;
    char *s = malloc(cap);
    while (s) {
        used += fread(s + used, 1, cap - used - 1, stdin);
        if (used < cap - 1)
            break;
        char *grown = cap > SIZE_MAX / 4 ? NULL : realloc(s, 2 * cap);
        if (!grown)
            free(s);
        s = grown;
        cap *= 2;
    }
    if (!s || ferror(stdin)) {
        free(s);
        fputs("lori: standard input could not be read\n", stderr);
        return NULL;
    }
    s[used] = 0;
    *n = (int64_t)used;
    return s;
}

static int64_t count_words(const char *const *words)
{
    int64_t n = 0;
    while (n < MAX_WORDS && words[n])
        n++;
    return n;
}

/* "true" or "false". */
static bool read_bool(const char *option, const char *text, int *no)
{
    *no = strcmp(text, "false") == 0;
    if (*no || strcmp(text, "true") == 0)
        return true;
    fprintf(stderr, "lori: --%s is true or false, not '%s'\n", option, text);
    return false;
}

/* Where texts come from: words and files, or standard input if neither. */
typedef struct sources {
    const char *words[MAX_WORDS + 1];
    int64_t n_words;
    cli_list files;
    char *input;
    int64_t input_bytes;
} sources;

static bool take_sources(sources *s)
{
    s->n_words = count_words(s->words);
    if (s->n_words || s->files.n)
        return true;
    s->input = read_stdin(&s->input_bytes);
    s->words[0] = s->input;
    s->n_words = s->input != NULL;
    return s->input != NULL;
}

static int run_tokenize(lori_tokenize_options *o, sources *s, bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    if (!take_sources(s))
        return EXIT_FAILED;
    o->texts = s->words;
    o->n_texts = s->n_words;
    o->text_bytes = s->input ? &s->input_bytes : NULL;
    o->files = (const char *const *)s->files.items;
    o->n_files = s->files.n;
    o->details = json && !o->count;
    o->hub_cache = cli_hub_cache();
    lori_status st = lori_tokenize(o, cli_ui(), &report, &err);
    return cli_finish(st, report, &err, json);
}

int cmd_tokenize(int argc, char **argv)
{
    lori_tokenize_options o = {0};
    bool json = false, count = false, plain = false, bytes = false;
    const char *add = "true";
    sources *s = calloc(1, sizeof *s);
    if (!s)
        return EXIT_FAILED;
    const cli_option options[] = {
        {"model", CLI_TEXT, &o.model, "PATH", "model folder or tokenizer.json"},
        {"file", CLI_LIST, &s->files, "FILE", "a text file; several times"},
        {"count", CLI_FLAG, &count, NULL, "print how many tokens only"},
        {"add-special-tokens", CLI_TEXT, &add, "true|false",
         "BOS and the like (true)"},
        {"plain-special-tokens", CLI_FLAG, &plain, NULL,
         "special tokens in the text are plain text"},
        {"byte-offsets", CLI_FLAG, &bytes, NULL,
         "--json: offsets in bytes, not characters"}};
    int code = cli_parse(
        &(cli_syntax){"lori tokenize --model PATH [TEXT ...] [options]",
                      "Prints the ids of each text, a line each; --json adds "
                      "tokens and offsets.\nWithout a text or --file, reads "
                      "standard input as one text.",
                      options, COUNT(options), s->words, MAX_WORDS, 0, NULL},
        argc, argv, &json);
    if (code < 0 && !read_bool("add-special-tokens", add, &o.no_special_tokens))
        code = EXIT_USAGE;
    o.count = count;
    o.plain_special_tokens = plain;
    o.byte_offsets = bytes;
    if (code < 0)
        code = run_tokenize(&o, s, json);
    cli_list_free(&s->files);
    free(s->input);
    free(s);
    return code;
}

/* "1 2 3" of several words is one list of ids. */
static char *join_words(const sources *s)
{
    size_t n = 1;
    for (int64_t i = 0; i < s->n_words; i++)
        n += strlen(s->words[i]) + 1;
    char *joined = calloc(n, 1);
    for (int64_t i = 0; joined && i < s->n_words; i++) {
        strcat(joined, s->words[i]);
        strcat(joined, " ");
    }
    return joined;
}

static int run_detokenize(lori_detokenize_options *o, sources *s, bool json)
{
    lori_error err = {0};
    lori_report *report = NULL;
    if (!take_sources(s))
        return EXIT_FAILED;
    char *ids = join_words(s);
    const char *const texts[] = {ids};
    if (!ids)
        return EXIT_FAILED;
    o->texts = texts;
    o->n_texts = s->n_words > 0;
    o->files = (const char *const *)s->files.items;
    o->n_files = s->files.n;
    o->hub_cache = cli_hub_cache();
    lori_status st = lori_detokenize(o, &report, &err);
    free(ids);
    return cli_finish(st, report, &err, json);
}

int cmd_detokenize(int argc, char **argv)
{
    lori_detokenize_options o = {0};
    bool json = false, skip = false;
    sources *s = calloc(1, sizeof *s);
    if (!s)
        return EXIT_FAILED;
    const cli_option options[] = {
        {"model", CLI_TEXT, &o.model, "PATH", "model folder or tokenizer.json"},
        {"file", CLI_LIST, &s->files, "FILE", "a file of ids; several times"},
        {"skip-special-tokens", CLI_FLAG, &skip, NULL,
         "leave out BOS and the like"}};
    int code = cli_parse(
        &(cli_syntax){"lori detokenize --model PATH [ID ...] [options]",
                      "Prints the text of ids. Without an id or --file, reads "
                      "ids from standard input;\nthey may be separated by "
                      "spaces, commas or lines.",
                      options, COUNT(options), s->words, MAX_WORDS, 0, NULL},
        argc, argv, &json);
    o.skip_special_tokens = skip;
    if (code < 0)
        code = run_detokenize(&o, s, json);
    cli_list_free(&s->files);
    free(s->input);
    free(s);
    return code;
}
