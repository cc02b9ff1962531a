/* chat_talk.c - one exchange: what is sent, the reply as it comes, and what is
 * kept of it. */
#include "cli/chat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* ---- what is sent ------------------------------------------------------- */

static const char *role_of(const chat *c, size_t i)
{
    const char *role = json_string_value(
        json_object_get(json_array_get(c->messages, i), "role"));
    return role ? role : "";
}

/* The messages as the library takes them: the system message and those that
 * still fit, role and content only. NULL when out of memory. */
static char *render(const chat *c)
{
    json_t *list = json_array();
    if (c->system)
        json_array_append_new(
            list, json_pack("{ssss}", "role", "system", "content", c->system));
    for (size_t i = c->first; i < json_array_size(c->messages); i++) {
        const json_t *m = json_array_get(c->messages, i);
        json_array_append_new(
            list, json_pack("{sOsO}", "role", json_object_get(m, "role"),
                            "content", json_object_get(m, "content")));
    }
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

/* On the screen 0 turns a setting off; in the library it means that nothing
 * was said. */
static lori_generate_options settle(const chat *c, const char *messages)
{
    lori_generate_options o = {.messages = messages,
                               .adapter = c->adapter,
                               .max_new_tokens = c->max_new_tokens,
                               .presence_penalty = c->presence_penalty,
                               .frequency_penalty = c->frequency_penalty,
                               .seed = c->seed + c->asked};
    o.greedy = c->greedy || c->temperature == 0;
    o.temperature = isnan(c->temperature) ? 0 : c->temperature;
    o.repetition_penalty =
        isnan(c->repetition_penalty) ? 0 : c->repetition_penalty;
    o.top_p = isnan(c->top_p) ? 0 : c->top_p;
    o.min_p = isnan(c->min_p) ? 0 : c->min_p == 0 ? -1 : c->min_p;
    o.top_k = c->top_k == INT64_MIN ? 0 : c->top_k == 0 ? -1 : c->top_k;
    return o;
}

/* ---- what fits ---------------------------------------------------------- */

static lori_status count(const chat *c, int64_t *tokens, lori_error *err)
{
    char *messages = render(c);
    lori_generate_options o = settle(c, messages);
    lori_status st = messages ? lori_count_tokens(c->session, &o, tokens, err)
                              : LORI_NO_MEMORY;
    free(messages);
    return st;
}

/* The next message of the user's behind c->first, or 0: there is none. */
static size_t next_turn(const chat *c)
{
    for (size_t i = c->first + 1; i < json_array_size(c->messages); i++)
        if (strcmp(role_of(c, i), "user") == 0)
            return i;
    return 0;
}

/* The rule: the prompt must leave room for a reply, a quarter of the context
 * or the longest reply if that is less. Else the oldest exchanges are left
 * out, after the user agreed or with drop-oldest; the system message stays.
 * *room: tokens that the reply may have. */
static bool make_room(chat *c, int64_t *room)
{
    int64_t context = lori_session_context(c->session), tokens = 0, all = 0;
    int64_t want = c->max_new_tokens > 0 && c->max_new_tokens < context / 4
                       ? c->max_new_tokens
                       : context / 4;
    size_t before = c->first;
    lori_error err = {0};
    for (;;) {
        if (count(c, &tokens, &err))
            return c->first = before, chat_fail("%s", err.message);
        all = all ? all : tokens;
        *room = context - tokens;
        if (*room >= want)
            break;
        size_t next = next_turn(c);
        if (!next) {
            c->first = before;
            return chat_fail("this message needs a context of %lld tokens, "
                             "with room for a reply; the model has %lld",
                             (long long)tokens + want, (long long)context);
        }
        c->first = next;
    }
    size_t dropped = c->first - before;
    if (!dropped)
        return true;
    if (!c->drop_oldest) {
        char question[256];
        snprintf(question, sizeof question,
                 "The conversation has %lld tokens, the context %lld. Leave "
                 "out the oldest %zu messages? [y/N] ",
                 (long long)all, (long long)context, dropped);
        if (!chat_agrees(c, question)) {
            c->first = before;
            return chat_fail("the conversation of %lld tokens leaves no room "
                             "for a reply in the context of %lld; /clear it, "
                             "or let the oldest messages go (drop-oldest)",
                             (long long)all, (long long)context);
        }
    }
    chat_note(c, "(the oldest %zu messages are no longer sent)\n", dropped);
    return true;
}

/* ---- the reply ---------------------------------------------------------- */

typedef struct reply {
    const chat *c;
    bool begun; /* something but spaces was shown */
    /* On a terminal a line breaks between words: the last one is held back
     * until it is known to be whole. */
    char word[256];
    size_t n_word;
    int word_columns, column, columns;
} reply;

static void put_word(reply *r)
{
    if (r->column + r->word_columns > r->columns && r->column > 0) {
        putchar('\n');
        r->column = 0;
    }
    fwrite(r->word, 1, r->n_word, stdout);
    r->column += r->word_columns;
    r->n_word = 0;
    r->word_columns = 0;
}

/* One character of the reply. A model must not steer the terminal: control
 * characters, which have no width, are left out. */
static void put_character(reply *r, const char *bytes, size_t n, wchar_t wide)
{
    int columns = wcwidth(wide);
    if (wide == L' ' || wide == L'\n' || wide == L'\t') {
        put_word(r);
        if (wide == L'\n' || r->column < r->columns)
            putchar((int)wide);
        r->column = wide == L'\n'   ? 0
                    : wide == L'\t' ? (r->column / 8 + 1) * 8
                                    : r->column + 1;
    } else if (columns >= 0 && n < sizeof r->word) {
        if (r->n_word + n > sizeof r->word ||
            r->word_columns + columns > r->columns)
            put_word(r);
        memcpy(r->word + r->n_word, bytes, n);
        r->n_word += n;
        r->word_columns += columns;
    }
}

static void show(reply *r, const char *bytes, size_t n)
{
    mbstate_t state = {0};
    while (n) {
        wchar_t wide = 0;
        size_t len = mbrtowc(&wide, bytes, n, &state);
        if (len == 0 || len > n) { /* a NUL; no such locale: bytes */
            state = (mbstate_t){0};
            wide = len == 0 ? 0 : L'?';
            len = 1;
        }
        put_character(r, bytes, len, wide);
        bytes += len;
        n -= len;
    }
}

static void on_text(void *context, int64_t request, int64_t index,
                    const char *bytes, int64_t n)
{
    reply *r = context;
    (void)request;
    (void)index;
    size_t from = 0;
    while (!r->begun && from < (size_t)n && strchr(" \n\t", bytes[from]))
        from++;
    r->begun |= from < (size_t)n;
    if (r->c->terminal)
        show(r, bytes + from, (size_t)n - from);
    else
        fwrite(bytes + from, 1, (size_t)n - from, stdout);
    fflush(stdout);
}

static int on_cancelled(void *context, int64_t request)
{
    (void)context;
    (void)request;
    return cli_interrupted();
}

static long long number_of(const json_t *facts, const char *key)
{
    return json_integer_value(json_object_get(facts, key));
}

static void statistics(const chat *c, const json_t *facts, const char *reason)
{
    long long n = number_of(facts, "completion_tokens");
    long long used = number_of(facts, "prompt_tokens") + n;
    long long context = lori_session_context(c->session);
    double rate = json_number_value(json_object_get(facts, "tokens_per_s"));
    double first = json_number_value(json_object_get(facts, "first_token_s"));
    const char *end = !strcmp(reason, "cancelled") ? "stopped: "
                      : strcmp(reason, "length")   ? ""
                      : used >= context            ? "the context is full: "
                                                   : "cut by max-new-tokens: ";
    chat_note(c,
              "%s%lld token%s, %.1f tok/s, the first after %.2f s, context "
              "%lld of %lld\n",
              end, n, n == 1 ? "" : "s", rate, first, used, context);
}

/* Keeps the reply, marked when it was stopped, and says how it went. */
static bool keep(chat *c, reply *r, lori_report *report)
{
    json_t *facts = json_loads(lori_report_json(report), 0, NULL);
    const char *reason =
        json_string_value(json_object_get(facts, "finish_reason"));
    put_word(r);
    bool stopped = reason && strcmp(reason, "cancelled") == 0;
    json_t *m = json_pack("{ssss}", "role", "assistant", "content",
                          lori_report_text(report));
    if (stopped)
        json_object_set_new(m, "partial", json_true());
    bool kept = json_array_append_new(c->messages, m) == 0;
    if (c->json)
        fputs(lori_report_json(report), stdout);
    else if (r->begun || !c->terminal)
        putchar('\n');
    if (c->terminal && reason)
        statistics(c, facts, reason);
    fflush(stdout);
    json_decref(facts);
    return kept || chat_fail("out of memory");
}

static bool ask(chat *c)
{
    int64_t room = 0;
    if (!make_room(c, &room))
        return false;
    char *messages = render(c);
    lori_generate_options o = settle(c, messages);
    if (o.max_new_tokens > room)
        o.max_new_tokens = room;
    reply r = {.c = c, .columns = cli_columns()};
    const lori_stream stream = {.context = &r,
                                .text = c->json ? NULL : on_text,
                                .cancelled = on_cancelled};
    lori_error err = {0};
    lori_report *report = NULL;
    /* Ctrl-C ends the reply, by the stream: what there is of it is kept. */
    lori_ui ui = *cli_ui();
    ui.interrupted = NULL;
    ui.progress = NULL;
    cli_interrupt_clear();
    lori_status st = lori_generate(c->session, &o, &stream, &ui, &report, &err);
    cli_interrupt_clear();
    free(messages);
    c->asked++;
    bool good = st ? chat_fail("%s", err.message) : keep(c, &r, report);
    lori_report_free(report);
    return good;
}

bool chat_talk(chat *c, const char *text)
{
    if (text) {
        json_t *m = json_pack("{ssss}", "role", "user", "content", text);
        if (!m)
            return chat_fail("the message is not valid UTF-8; not sent");
        json_array_append_new(c->messages, m);
    }
    size_t n = json_array_size(c->messages);
    if (ask(c))
        return true;
    if (text)
        json_array_remove(c->messages, n - 1);
    return false;
}
