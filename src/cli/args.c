/* args.c - command lines: "--name value", "--name=value", flags, words. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_list_free(cli_list *list)
{
    for (int64_t i = 0; i < list->n; i++)
        free(list->items[i]);
    free(list->items);
    *list = (cli_list){0};
}

/* Takes `item` (malloc'd), also when it fails. */
static bool list_take(cli_list *list, char *item)
{
    char **grown =
        item ? realloc(list->items, (size_t)(list->n + 1) * sizeof *grown)
             : NULL;
    if (!grown) {
        free(item);
        return false;
    }
    list->items = grown;
    list->items[list->n++] = item;
    return true;
}

static bool list_add(cli_list *list, const char *item)
{
    return list_take(list, strdup(item));
}

static int usage_error(const cli_syntax *s, const char *before,
                       const char *word, const char *after, const char *hint)
{
    fprintf(stderr, "lori: %s%s%s", before, word, after);
    if (hint)
        fprintf(stderr, "; did you mean '--%s'?", hint);
    fprintf(stderr, "\nusage: %s (--help tells more)\n", s->usage);
    return EXIT_USAGE;
}

static void print_help(const cli_syntax *s)
{
    printf("usage: %s\n\n%s\n\noptions:\n", s->usage, s->about);
    for (size_t i = 0; i < s->n_options; i++) {
        char left[64];
        snprintf(left, sizeof left, "--%s %s", s->options[i].name,
                 s->options[i].value ? s->options[i].value : "");
        printf("  %-28s %s\n", left, s->options[i].help);
    }
    printf("  %-28s %s\n", "--json", "print the result as JSON");
    printf("  %-28s %s\n", "--help", "print this");
}

static bool read_number(const char *text, const cli_option *o)
{
    char *end = NULL;
    errno = 0;
    if (o->kind == CLI_INT)
        *(int64_t *)o->at = strtoll(text, &end, 10);
    else if (o->kind == CLI_SEED)
        *(uint64_t *)o->at = strtoull(text, &end, 0);
    else
        *(double *)o->at = strtod(text, &end);
    if (o->kind == CLI_REAL && !isfinite(*(double *)o->at))
        return false;
    return errno == 0 && end != text && *end == 0 &&
           !(o->kind == CLI_SEED && *text == '-');
}

bool cli_option_set(const cli_option *o, const char *text)
{
    switch (o->kind) {
    case CLI_TEXT:
        *(const char **)o->at = text;
        return true;
    case CLI_LIST:
        return list_add(o->at, text);
    case CLI_DTYPE:
        *(lori_dtype *)o->at = !strcmp(text, "f32")    ? LORI_DTYPE_F32
                               : !strcmp(text, "bf16") ? LORI_DTYPE_BF16
                                                       : LORI_DTYPE_DEFAULT;
        return *(lori_dtype *)o->at != LORI_DTYPE_DEFAULT;
    case CLI_FLAG:
        *(bool *)o->at = strcmp(text, "on") == 0;
        return *(bool *)o->at || strcmp(text, "off") == 0;
    case CLI_INT:
    case CLI_SEED:
    case CLI_REAL:
        break;
    }
    return read_number(text, o);
}

static const char *nearest_option(const cli_syntax *s, const char *word)
{
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < s->n_options && n < 62; i++)
        names[n++] = s->options[i].name;
    names[n++] = "json";
    names[n++] = "help";
    return lori_nearest(word, names, (int64_t)n);
}

static const cli_option *find_option(const cli_syntax *s, const char *name,
                                     size_t len)
{
    for (size_t i = 0; i < s->n_options; i++)
        if (strlen(s->options[i].name) == len &&
            !memcmp(s->options[i].name, name, len))
            return &s->options[i];
    return NULL;
}

/* "--key value" and "--key=value" of a recipe key become "key=value". */
static int recipe_override(const cli_syntax *s, int argc, char **argv, int *i)
{
    const char *word = argv[*i] + 2;
    if (strchr(word, '='))
        return list_add(s->overrides, word) ? -1 : EXIT_FAILED;
    if (*i + 1 >= argc)
        return usage_error(s, "option '", argv[*i], "' needs a value", NULL);
    const char *value = argv[++*i];
    size_t n = strlen(word) + strlen(value) + 2;
    char *joined = malloc(n);
    if (!joined)
        return EXIT_FAILED;
    snprintf(joined, n, "%s=%s", word, value);
    for (char *c = joined; *c != '='; c++)
        *c = *c == '-' ? '_' : *c;
    return list_take(s->overrides, joined) ? -1 : EXIT_FAILED;
}

static int parse_option(const cli_syntax *s, int argc, char **argv, int *i,
                        bool *json)
{
    const char *word = argv[*i] + 2, *eq = strchr(word, '=');
    size_t len = eq ? (size_t)(eq - word) : strlen(word);
    if (!strcmp(word, "json"))
        return *json = true, -1;
    const cli_option *o = find_option(s, word, len);
    if (!o && s->overrides)
        return recipe_override(s, argc, argv, i);
    if (!o)
        return usage_error(s, "unknown option '", argv[*i], "'",
                           nearest_option(s, word));
    if (o->kind == CLI_FLAG) {
        if (eq)
            return usage_error(s, "option '--", o->name, "' takes no value",
                               NULL);
        return *(bool *)o->at = true, -1;
    }
    if (!eq && *i + 1 >= argc)
        return usage_error(s, "option '--", o->name, "' needs a value", NULL);
    const char *value = eq ? eq + 1 : argv[++*i];
    if (cli_option_set(o, value))
        return -1;
    char what[96];
    snprintf(what, sizeof what, "--%.60s does not take '", o->name);
    return usage_error(s, what, value,
                       o->kind == CLI_DTYPE ? "' (bf16 or f32)" : "'", NULL);
}

const char *cli_isa(void)
{
    const char *isa = getenv("LORI_ISA");
    return isa && *isa ? isa : NULL;
}

int cli_parse(const cli_syntax *s, int argc, char **argv, bool *json)
{
    size_t words = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help(s);
            return EXIT_OK;
        }
    for (int i = 1; i < argc; i++) {
        if (!only_words && !strcmp(argv[i], "--")) {
            only_words = true;
        } else if (!only_words && !strncmp(argv[i], "--", 2)) {
            int code = parse_option(s, argc, argv, &i, json);
            if (code >= 0)
                return code;
        } else if (s->overrides && strchr(argv[i], '=')) {
            if (!list_add(s->overrides, argv[i]))
                return EXIT_FAILED;
        } else if (words < s->n_positional) {
            s->positional[words++] = argv[i];
        } else {
            return usage_error(s, "unexpected argument '", argv[i], "'", NULL);
        }
    }
    if (words < s->n_needed)
        return usage_error(s, "an argument is missing", "", "", NULL);
    return -1;
}
