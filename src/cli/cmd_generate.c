/* cmd_generate.c - the command generate: replies to one prompt, streamed, or to
 * the rows of a file. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- options of several commands ---------------------------------------- */

bool cli_read_ids(const char *text, int32_t **ids, int64_t *n)
{
    size_t most = strlen(text) / 2 + 1;
    *n = 0;
    *ids = malloc(most * sizeof **ids);
    while (*ids && *text) {
        char *end = NULL;
        errno = 0;
        long id = strtol(text, &end, 10);
        if (errno || end == text || id < 0 || id > INT32_MAX ||
            (*end && *end != ','))
            return false;
        (*ids)[(*n)++] = (int32_t)id;
        text = end + (*end == ',');
    }
    return *ids && *n > 0;
}

int cli_bad_ids(const char *text)
{
    fprintf(stderr,
            "lori: --ids takes token ids separated by commas, not "
            "'%s'\n",
            text);
    return EXIT_USAGE;
}

int cli_adapters_open(cli_adapters *a, lori_session_options *options)
{
    a->named = calloc((size_t)a->words.n + 1, sizeof *a->named);
    if (!a->named)
        return EXIT_FAILED;
    options->adapters = a->named;
    options->hub_cache = cli_hub_cache();
    for (int64_t i = 0; i < a->words.n; i++) {
        char *word = a->words.items[i], *eq = strchr(word, '=');
        char *slash = strchr(word, '/');
        if (eq && (!slash || slash > eq)) {
            *eq = 0;
            a->named[options->n_adapters++] =
                (lori_named_adapter){word, eq + 1};
            if (i == 0 && !a->chosen)
                a->chosen = word;
        } else if (i == 0) {
            options->adapter = word;
        } else {
            fprintf(stderr,
                    "lori: --adapter %s: every adapter after the first needs a "
                    "name: --adapter NAME=%s\n",
                    word, word);
            return EXIT_USAGE;
        }
    }
    return -1;
}

void cli_adapters_free(cli_adapters *a)
{
    free(a->named);
    cli_list_free(&a->words);
}

/* ---- generate ------------------------------------------------------------ */

typedef struct generate {
    lori_session_options open;
    lori_generate_options ask;
    cli_adapters adapters;
    cli_list stops;
    const char *words[1];
    const char *ids_text, *prompt_file, *input, *output;
    int32_t *ids;
    char *text; /* of prompt_file or standard input */
    double temperature, min_p;
    int64_t top_k, logprobs, threads;
    bool json, chat, greedy, ignore_eos, replace;
} generate;

static void on_text(void *context, int64_t request, int64_t reply,
                    const char *bytes, int64_t n)
{
    (void)context;
    (void)request;
    (void)reply;
    cli_ui_end();
    fwrite(bytes, 1, (size_t)n, stdout);
    fflush(stdout);
}

static int run(generate *g)
{
    lori_error err = {0};
    lori_report *report = NULL;
    lori_session *session = NULL;
    const lori_ui *ui = cli_ui();
    const lori_stream stream = {.text = on_text};
    bool shown = !g->json && g->ask.n <= 1;
    lori_status st = lori_session_open(&g->open, ui, &session, &err);
    if (!st)
        st = lori_generate(session, &g->ask, shown ? &stream : NULL, ui,
                           &report, &err);
    lori_session_close(session);
    if (!st && shown) {
        lori_report_free(report);
        report = NULL;
        puts("");
    }
    return cli_finish(st, report, &err, g->json);
}

static int run_file(generate *g)
{
    lori_error err = {0};
    lori_report *report = NULL;
    lori_session *session = NULL;
    const lori_ui *ui = cli_ui();
    const lori_generate_file_options o = {.input = g->input,
                                          .output = g->output,
                                          .defaults = g->ask,
                                          .replace = g->replace};
    lori_status st = lori_session_open(&g->open, ui, &session, &err);
    if (!st)
        st = lori_generate_file(session, &o, ui, &report, &err);
    lori_session_close(session);
    return cli_finish(st, report, &err, g->json);
}

/* A whole stream as text; NULL when it cannot be read. Caller frees. */
static char *read_all(FILE *f)
{
    size_t n = 0, cap = 4096;
    char *s = malloc(cap);
    while (s) {
        n += fread(s + n, 1, cap - n - 1, f);
        if (n + 1 < cap)
            break;
        char *grown = realloc(s, cap *= 2);
        if (!grown)
            free(s);
        s = grown;
    }
    if (s)
        s[n] = 0;
    if (s && (ferror(f) || strlen(s) != n)) {
        free(s);
        s = NULL;
    }
    return s;
}

/* The prompt's text: --prompt, the word, a file, or standard input. */
static int find_prompt(generate *g)
{
    lori_generate_options *o = &g->ask;
    if (g->input || g->output)
        return -1; /* the library says what is missing or too much */
    int given = (o->prompt != NULL) + (g->words[0] != NULL) +
                (g->prompt_file != NULL) + (g->ids_text != NULL);
    if (given > 1) {
        fputs("lori: give one prompt: --prompt, a word, --prompt-file or "
              "--ids\n",
              stderr);
        return EXIT_USAGE;
    }
    if (g->words[0])
        o->prompt = g->words[0];
    if (g->ids_text)
        return cli_read_ids(g->ids_text, &g->ids, &o->n_ids)
                   ? (o->ids = g->ids, -1)
                   : cli_bad_ids(g->ids_text);
    if (given && !g->prompt_file)
        return -1;
    if (!given && isatty(STDIN_FILENO)) {
        fputs("lori: no prompt: give --prompt TEXT, --prompt-file FILE, or "
              "text on standard input\n",
              stderr);
        return EXIT_USAGE;
    }
    const char *name = g->prompt_file ? g->prompt_file : "standard input";
    FILE *f = g->prompt_file ? fopen(g->prompt_file, "r") : stdin;
    if (f)
        g->text = read_all(f);
    if (!g->text)
        fprintf(stderr, "lori: cannot read the prompt from %s as text%s%s\n",
                name, f ? "" : ": ", f ? "" : strerror(errno));
    if (f && f != stdin)
        fclose(f);
    o->prompt = g->text;
    return g->text ? -1 : EXIT_FAILED;
}

/* On the command line 0 turns a setting off; in the library it means that
 * nothing was said. */
static void settle(generate *g)
{
    lori_generate_options *o = &g->ask;
    o->greedy = g->greedy || g->temperature == 0;
    o->temperature = isnan(g->temperature) ? 0 : g->temperature;
    o->min_p = isnan(g->min_p) ? 0 : g->min_p == 0 ? -1 : g->min_p;
    o->top_k = g->top_k == INT64_MIN ? 0 : g->top_k == 0 ? -1 : g->top_k;
    o->logprobs = g->logprobs >= 0;
    o->top_logprobs = g->logprobs > 0 ? g->logprobs : 0;
    o->chat = g->chat;
    o->ignore_eos = g->ignore_eos;
    o->stop = (const char *const *)g->stops.items;
    o->n_stop = g->stops.n;
    o->adapter = g->adapters.chosen;
    g->open.n_threads = (int)g->threads;
    g->open.isa = cli_isa();
    if (!g->input && g->open.max_batch == 0 && o->n < 16)
        g->open.max_batch = o->n > 1 ? o->n : 1; /* one prompt's replies */
}

static int parse(generate *g, int argc, char **argv)
{
    lori_generate_options *o = &g->ask;
    const cli_option options[] = {
        {"model", CLI_TEXT, &g->open.model, "DIR", "base model folder"},
        {"adapter", CLI_LIST, &g->adapters.words, "[NAME=]DIR",
         "adapter folder; the first is used unless --use says another"},
        {"use", CLI_TEXT, &g->adapters.chosen, "NAME",
         "the adapter to use; none: the base"},
        {"dtype", CLI_DTYPE, &g->open.dtype, "bf16|f32",
         "to compute in (bf16)"},
        {"threads", CLI_INT, &g->threads, "N", "(all processors)"},
        {"prompt", CLI_TEXT, &o->prompt, "TEXT", "the prompt"},
        {"prompt-file", CLI_TEXT, &g->prompt_file, "FILE",
         "or the text of a file"},
        {"ids", CLI_TEXT, &g->ids_text, "1,2,3", "or token ids"},
        {"input", CLI_TEXT, &g->input, "FILE",
         "or rows: {\"prompt\": ...} or {\"messages\": ...} a line"},
        {"output", CLI_TEXT, &g->output, "FILE",
         "with --input: a line a row; run again after a stop, it goes on"},
        {"replace", CLI_FLAG, &g->replace, NULL,
         "write over --output, begin anew"},
        {"chat", CLI_FLAG, &g->chat, NULL, "apply the model's chat template"},
        {"system", CLI_TEXT, &o->system, "TEXT", "system message of the chat"},
        {"chat-template", CLI_TEXT, &g->open.chat_template, "FILE|NAME",
         "instead of the model's: alpaca, llama3, chatml or none"},
        {"chat-template-kwargs", CLI_TEXT, &o->chat_template_kwargs, "JSON",
         "object of variables for the template"},
        {"n", CLI_INT, &o->n, "N", "replies (1)"},
        {"max-new-tokens", CLI_INT, &o->max_new_tokens, "N", "(256)"},
        {"min-new-tokens", CLI_INT, &o->min_new_tokens, "N", "(0)"},
        {"greedy", CLI_FLAG, &g->greedy, NULL, "no sampling"},
        {"temperature", CLI_REAL, &g->temperature, "T", "0: greedy"},
        {"top-k", CLI_INT, &g->top_k, "K", "0: off"},
        {"top-p", CLI_REAL, &o->top_p, "P", "1: off"},
        {"min-p", CLI_REAL, &g->min_p, "P", "0: off"},
        {"repetition-penalty", CLI_REAL, &o->repetition_penalty, "X",
         "of prompt and reply, 1: off"},
        {"presence-penalty", CLI_REAL, &o->presence_penalty, "X",
         "of the reply's tokens (0)"},
        {"frequency-penalty", CLI_REAL, &o->frequency_penalty, "X",
         "for each time they came (0)"},
        {"seed", CLI_SEED, &o->seed, "N", "of the sampling (0)"},
        {"stop", CLI_LIST, &g->stops, "TEXT", "ends the reply, not shown"},
        {"ignore-eos", CLI_FLAG, &g->ignore_eos, NULL, "do not stop at EOS"},
        {"max-batch", CLI_INT, &g->open.max_batch, "N",
         "replies that grow together (16)"},
        {"kv-bytes", CLI_INT, &g->open.cache_bytes, "N",
         "most for keys and values (4 GiB)"},
        {"compact-bytes", CLI_INT, &g->open.compact_bytes, "N",
         "most for copies of weights that make replies faster (half of what "
         "is free); -1: none"},
        {"draft-tokens", CLI_INT, &g->open.draft_tokens, "N",
         "guessed ahead and checked in the same step (as many as pay); -1: "
         "none"},
        {"logprobs", CLI_INT, &g->logprobs, "N",
         "of each token, and of the N best, in JSON"}};
    return cli_parse(
        &(cli_syntax){"lori generate --model DIR [PROMPT] [options]",
                      "Generates text from a prompt, as it comes, or from the "
                      "rows of a file. Where nothing\nis said about sampling, "
                      "the model's generation_config.json decides; without it "
                      "the\nmost likely token is taken. Rows may say their own "
                      "temperature, adapter and so on.",
                      options, COUNT(options), g->words, 1, 0, NULL},
        argc, argv, &g->json);
}

int cmd_generate(int argc, char **argv)
{
    generate g = {.temperature = (double)NAN,
                  .min_p = (double)NAN,
                  .top_k = INT64_MIN,
                  .logprobs = -1};
    int code = parse(&g, argc, argv);
    if (code < 0)
        code = cli_adapters_open(&g.adapters, &g.open);
    if (code < 0)
        code = find_prompt(&g);
    if (code < 0) {
        settle(&g);
        code = g.input || g.output ? run_file(&g) : run(&g);
    }
    cli_adapters_free(&g.adapters);
    cli_list_free(&g.stops);
    free(g.ids);
    free(g.text);
    return code;
}
