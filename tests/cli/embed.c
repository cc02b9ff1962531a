/* embed.c - the library as another program uses it: lori.h and liblori.so
 * alone. Opens a base with an adapter, generates, checks what comes back.
 *   embed MODEL ADAPTER */
#include <stdio.h>
#include <string.h>

#include <lori.h>

static void count(void *context, int64_t request, int64_t reply,
                  const char *bytes, int64_t n)
{
    (void)bytes;
    (void)request;
    (void)reply;
    *(int64_t *)context += n;
}

int main(int argc, char **argv)
{
    lori_error err;
    lori_session *session = NULL;
    lori_report *report = NULL;
    int64_t streamed = 0;
    lori_stream stream = {.context = &streamed, .text = count};
    if (argc < 3)
        return 2;
    lori_session_options open = {.model = argv[1], .adapter = argv[2]};
    lori_generate_options ask = {
        .prompt = "say 5", .max_new_tokens = 6, .ignore_eos = 1};
    if (lori_session_open(&open, NULL, &session, &err) ||
        lori_generate(session, &ask, &stream, NULL, &report, &err)) {
        fprintf(stderr, "lori: %s\n", err.message);
        return 1;
    }
    int good = strstr(lori_report_json(report), "\"completion_tokens\": 6") &&
               (int64_t)strlen(lori_report_text(report)) == streamed;
    lori_report_free(report);
    lori_session_close(session);
    /* a failure leaves nothing and says what is wrong */
    open.model = "no such folder";
    good = good && lori_session_open(&open, NULL, &session, &err) && !session &&
           strstr(err.message, "no such folder");
    puts(good ? "ok" : "wrong");
    return !good;
}
