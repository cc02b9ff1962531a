/* cmd_chat.c - `lori chat`: a conversation in the terminal, or through pipes:
 * a line in, a reply out. */
#include "cli/chat.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- words for people --------------------------------------------------- */

void chat_note(const chat *c, const char *fmt, ...)
{
    va_list ap;
    FILE *to = c->terminal ? stdout : stderr; /* a pipe gets replies only */
    va_start(ap, fmt);
    fputs(c->color ? "\033[2m" : "", to);
    vfprintf(to, fmt, ap);
    fputs(c->color ? "\033[0m" : "", to);
    va_end(ap);
    fflush(to);
}

bool chat_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    fputs("lori: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return false;
}

const char *chat_adapter_name(const chat *c)
{
    return c->adapter ? c->adapter : c->unnamed ? c->unnamed : "none";
}

/* ---- input -------------------------------------------------------------- */

static char *read_plain(const chat *c, const char *prompt)
{
    char *line = NULL;
    size_t cap = 0;
    if (c->terminal) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        line[--n] = '\0';
    /* What follows a NUL would be lost: no UTF-8 text, which is refused. */
    if (strlen(line) != (size_t)n)
        line[0] = '\xff';
    return line;
}

static char *read_line(const chat *c, const char *prompt)
{
    return c->edit ? chat_edit_line(c->edit, prompt) : read_plain(c, prompt);
}

/* The lines until one that ends in three quotes; `rest` followed the first
 * three. */
static char *read_block(const chat *c, const char *rest)
{
    char *text = strdup(rest);
    for (bool first = *rest == '\0'; text; first = false) {
        size_t n = strlen(text);
        if (n >= 3 && strcmp(text + n - 3, "\"\"\"") == 0) {
            text[n - 3] = '\0';
            break;
        }
        char *line = read_line(c, ". ");
        if (!line)
            break;
        char *grown = realloc(text, n + strlen(line) + 2);
        if (grown) {
            text = grown;
            snprintf(text + n, strlen(line) + 2, "%s%s", first ? "" : "\n",
                     line);
        } else {
            free(text);
            text = NULL;
        }
        free(line);
    }
    return text;
}

char *chat_read(chat *c, const char *prompt)
{
    char *line = read_line(c, prompt);
    if (!line || strncmp(line, "\"\"\"", 3) != 0)
        return line;
    char *block = read_block(c, line + 3);
    free(line);
    return block;
}

bool chat_agrees(chat *c, const char *question)
{
    if (!c->terminal)
        return false;
    char *answer = read_line(c, question);
    bool yes = answer && (*answer == 'y' || *answer == 'Y');
    free(answer);
    return yes;
}

/* ---- the loop ----------------------------------------------------------- */

static void greet(const chat *c)
{
    chat_note(c, "%s, adapter %s, context of %lld tokens\n", c->model,
              chat_adapter_name(c),
              (long long)lori_session_context(c->session));
    chat_note(c, "/help lists commands, Ctrl-C stops a reply, Ctrl-D leaves\n");
}

/* An exit code: through a pipe the first error ends the program. */
static int converse(chat *c)
{
    if (c->terminal)
        greet(c);
    while (!c->quit) {
        if (c->terminal)
            putchar('\n');
        char *line = chat_read(c, "> ");
        if (!line)
            break;
        bool good = true;
        char *text = line + strspn(line, " \t\r\n");
        if (text[0] == '/' && text[1] != '/')
            good = chat_command(c, text);
        else if (*text)
            good = chat_talk(c, text + (*text == '/'));
        free(line);
        if (!good && !c->terminal)
            return EXIT_FAILED;
    }
    if (c->terminal && !c->quit)
        putchar('\n');
    return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_OK : EXIT_FAILED;
}

static int run(chat *c, const lori_session_options *open)
{
    lori_error err = {0};
    lori_status st = lori_session_open(open, cli_ui(), &c->session, &err);
    if (st)
        return cli_finish(st, NULL, &err, false);
    cli_ui_end();
    cli_signals_patient();
    c->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    const char *plain = getenv("NO_COLOR"), *term = getenv("TERM");
    bool dumb = !term || strcmp(term, "dumb") == 0;
    c->color = c->terminal && !dumb && !(plain && *plain);
    /* The editor needs to know that bytes are UTF-8. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    if (c->terminal && !dumb)
        c->edit = chat_edit_open(c->color);
    int code = converse(c);
    chat_edit_close(c->edit);
    lori_session_close(c->session);
    return code;
}

/* ---- options ------------------------------------------------------------ */

static void list_settings(chat *c)
{
    const cli_option settings[CHAT_SETTINGS] = {
        {"temperature", CLI_REAL, &c->temperature, "T", "0: greedy"},
        {"top-k", CLI_INT, &c->top_k, "K", "0: off"},
        {"top-p", CLI_REAL, &c->top_p, "P", "1: off"},
        {"min-p", CLI_REAL, &c->min_p, "P", "0: off"},
        {"repetition-penalty", CLI_REAL, &c->repetition_penalty, "X",
         "of prompt and reply, 1: off"},
        {"presence-penalty", CLI_REAL, &c->presence_penalty, "X",
         "of the reply's tokens (0)"},
        {"frequency-penalty", CLI_REAL, &c->frequency_penalty, "X",
         "for each time they came (0)"},
        {"max-new-tokens", CLI_INT, &c->max_new_tokens, "N",
         "longest reply (1024)"},
        {"seed", CLI_SEED, &c->seed, "N", "of the sampling (0)"},
        {"greedy", CLI_FLAG, &c->greedy, NULL, "no sampling"},
        {"drop-oldest", CLI_FLAG, &c->drop_oldest, NULL,
         "full context: the oldest go unasked"},
        {"json", CLI_FLAG, &c->json, NULL, "replies as JSON reports"}};
    memcpy(c->settings, settings, sizeof settings);
}

static int parse(chat *c, lori_session_options *open, cli_adapters *adapters,
                 const char **system, int argc, char **argv)
{
    int64_t threads = 0;
    const cli_option more[] = {
        {"model", CLI_TEXT, &open->model, "DIR", "base model: folder or name"},
        {"adapter", CLI_LIST, &adapters->words, "[NAME=]DIR",
         "adapter; the first is used unless --use says another"},
        {"use", CLI_TEXT, &adapters->chosen, "NAME",
         "the adapter to start with; none: the base"},
        {"system", CLI_TEXT, system, "TEXT", "system message"},
        {"chat-template", CLI_TEXT, &open->chat_template, "FILE|NAME",
         "instead of the model's: alpaca, llama3, chatml or none"},
        {"dtype", CLI_DTYPE, &open->dtype, "bf16|f32", "to compute in (bf16)"},
        {"threads", CLI_INT, &threads, "N", "(all processors)"}};
    enum { MORE = sizeof more / sizeof *more };
    cli_option all[MORE + CHAT_SETTINGS];
    memcpy(all, more, sizeof more);
    memcpy(all + MORE, c->settings, sizeof c->settings);
    int code = cli_parse(
        &(cli_syntax){"lori chat --model DIR [--adapter DIR] [options]",
                      "A conversation in the terminal; /help there lists the "
                      "commands. Through pipes:\na line in, a reply out. What "
                      "is not set is as generation_config.json says.",
                      all, MORE + CHAT_SETTINGS - 1, NULL, 0, 0, NULL},
        argc, argv, &c->json);
    open->n_threads = (int)threads;
    open->isa = cli_isa();
    return code < 0 ? cli_adapters_open(adapters, open) : code;
}

int cmd_chat(int argc, char **argv)
{
    const double unset = (double)NAN;
    chat c = {.temperature = unset,
              .top_p = unset,
              .min_p = unset,
              .repetition_penalty = unset,
              .top_k = INT64_MIN,
              .max_new_tokens = 1024,
              .messages = json_array()};
    lori_session_options open = {.max_batch = 1};
    cli_adapters adapters = {0};
    const char *system = NULL;
    list_settings(&c);
    int code = parse(&c, &open, &adapters, &system, argc, argv);
    if (code < 0) {
        c.model = open.model;
        c.unnamed = open.adapter;
        c.adapter = adapters.chosen ? strdup(adapters.chosen) : NULL;
        c.system = system ? strdup(system) : NULL;
        code = c.messages ? run(&c, &open) : EXIT_FAILED;
    }
    json_decref(c.messages);
    free(c.system);
    free(c.adapter);
    free(c.file);
    cli_adapters_free(&adapters);
    return code;
}
