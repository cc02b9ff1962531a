/* hub_http.c - GET with redirects, resume and patience, over libcurl. Refuses
 * answers longer than they should be, and to carry the token to another host or
 * from https to http. TLS certificates are always verified. Includes base,
 * libcurl and libc. */
#include <curl/curl.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

#include "hub/hub_i.h"

enum { REDIRECTS = 8, ATTEMPTS = 6, PAGE_MAX = 1 << 20 };
#define FIRST_WAIT_S   0.5
#define LONGEST_WAIT_S 60.0
#define IDLE_S         60L /* a connection that gives nothing is broken */

struct hub_http {
    CURL *curl;
    const lori_ui *ui;
    char *endpoint;           /* without a slash at the end */
    struct curl_slist *token; /* "Authorization: Bearer ...", or NULL */
};

const char *hub_http_library(void)
{
    return curl_version();
}

lori_status hub_http_open(const char *endpoint, const char *token,
                          const lori_ui *ui, hub_http **out, lori_error *err)
{
    *out = NULL;
    size_t n = strlen(endpoint);
    while (n && endpoint[n - 1] == '/')
        n--;
    if (strncmp(endpoint, "https://", 8) != 0 &&
        strncmp(endpoint, "http://", 7) != 0)
        return base_fail(err, LORI_INVALID,
                         "the endpoint '%s' does not start with https:// or "
                         "http://",
                         endpoint);
    for (const char *c = token ? token : ""; *c; c++)
        if (*c <= ' ' || *c == 0x7f)
            return base_fail(err, LORI_INVALID,
                             "the token holds a space, a line end or a byte "
                             "that no token has");
    hub_http *http = base_alloc(1, sizeof *http);
    if (!http)
        return base_no_memory(err, sizeof *http);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    base_str line = {0};
    base_str_printf(&line, "Authorization: Bearer %s", token ? token : "");
    http->ui = ui;
    http->endpoint = base_strndup(endpoint, n);
    http->curl = curl_easy_init();
    if (token && line.s)
        http->token = curl_slist_append(NULL, line.s);
    base_str_free(&line);
    if (http->endpoint && http->curl && (!token || http->token)) {
        *out = http;
        return LORI_OK;
    }
    hub_http_close(http);
    return base_no_memory(err, n);
}

void hub_http_close(hub_http *http)
{
    if (!http)
        return;
    curl_easy_cleanup(http->curl);
    curl_slist_free_all(http->token);
    free(http->endpoint);
    free(http);
    curl_global_cleanup();
}

/* ---- one request ------------------------------------------------------- */

/* What one request brought. */
typedef struct answer {
    hub_http *http;
    hub_sink *sink;
    const char *what;
    int64_t first, whole;                 /* of Content-Range; -1 unknown */
    char error_code[64], error_text[256]; /* X-Error-Code, X-Error-Message */
    bool begun;
    size_t ignored;     /* bytes of pages about errors and redirects */
    lori_status status; /* of the sink, or of our own refusals */
    lori_error *err;
} answer;

/* The value of header `name` in the line, or NULL; *n its length. */
static const char *header(const char *line, size_t bytes, const char *name,
                          size_t *n)
{
    size_t len = strlen(name);
    if (bytes < len || strncasecmp(line, name, len) != 0)
        return NULL;
    const char *p = line + len, *end = line + bytes;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (unsigned char)end[-1] <= ' ')
        end--;
    *n = (size_t)(end - p);
    return p;
}

static void copy(char *out, size_t cap, const char *s, size_t n)
{
    n = n < cap ? n : cap - 1;
    for (size_t i = 0; i < n; i++) /* it goes to a terminal */
        out[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    out[n] = '\0';
}

static size_t on_header(char *line, size_t one, size_t bytes, void *context)
{
    answer *a = context;
    size_t n = 0;
    const char *v;
    if ((v = header(line, bytes, "content-range:", &n))) {
        char text[96];
        long long first = -1, last = -1, whole = -1;
        copy(text, sizeof text, v, n);
        if (sscanf(text, "bytes %lld-%lld/%lld", &first, &last, &whole) >= 2)
            a->first = first;
        a->whole = whole;
    } else if ((v = header(line, bytes, "x-error-code:", &n))) {
        copy(a->error_code, sizeof a->error_code, v, n);
    } else if ((v = header(line, bytes, "x-error-message:", &n))) {
        copy(a->error_text, sizeof a->error_text, v, n);
    }
    return one * bytes;
}

static lori_status wrong_size(const answer *a, int64_t got)
{
    return base_fail(a->err, LORI_FORMAT,
                     "%s: the server sends %lld bytes, but the hub's list says "
                     "%lld; try again later, or another --endpoint",
                     a->what, (long long)got, (long long)a->sink->size);
}

/* Before the first byte: does the answer start where it should? */
static lori_status begin(answer *a, long code)
{
    hub_sink *sink = a->sink;
    curl_off_t length = -1;
    curl_easy_getinfo(a->http->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
                      &length);
    if (code == 206 && a->first != sink->have)
        return base_fail(a->err, LORI_FORMAT,
                         "%s: asked for bytes from %lld on, got them from %lld",
                         a->what, (long long)sink->have, (long long)a->first);
    if (code == 206 && a->whole >= 0 && a->whole != sink->size)
        return wrong_size(a, a->whole);
    if (code == 200 && sink->have > 0) { /* a server that knows no ranges */
        BASE_TRY(sink->restart(sink->context, a->err));
        sink->have = 0;
    }
    if (length >= 0 && sink->size >= 0 && sink->have + length != sink->size)
        return wrong_size(a, sink->have + length);
    return LORI_OK;
}

static lori_status take(answer *a, const char *bytes, size_t n)
{
    hub_sink *sink = a->sink;
    long code = 0;
    curl_easy_getinfo(a->http->curl, CURLINFO_RESPONSE_CODE, &code);
    if (code != 200 && code != 206) {
        a->ignored += n;
        return a->ignored <= PAGE_MAX
                   ? LORI_OK
                   : base_fail(a->err, LORI_FORMAT,
                               "%s: the server's page about %ld does not end",
                               a->what, code);
    }
    if (!a->begun)
        BASE_TRY(begin(a, code));
    a->begun = true;
    int64_t most = sink->size >= 0 ? sink->size : sink->max;
    if ((int64_t)n > most - sink->have)
        return base_fail(a->err, LORI_FORMAT,
                         "%s: the server sends more than the %lld bytes that "
                         "were expected",
                         a->what, (long long)most);
    BASE_TRY(sink->put(sink->context, bytes, n, a->err));
    sink->have += (int64_t)n;
    return LORI_OK;
}

static size_t on_bytes(char *bytes, size_t one, size_t n, void *context)
{
    answer *a = context;
    a->status = take(a, bytes, one * n);
    return a->status ? 0 : n;
}

static int on_tick(void *context, curl_off_t total, curl_off_t now,
                   curl_off_t up_total, curl_off_t up)
{
    answer *a = context;
    (void)total, (void)now, (void)up_total, (void)up;
    return base_interrupted(a->http->ui);
}

static bool same_host(const char *a, const char *b)
{
    CURLU *x = curl_url(), *y = curl_url();
    bool same = x && y && !curl_url_set(x, CURLUPART_URL, a, 0) &&
                !curl_url_set(y, CURLUPART_URL, b, 0);
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST,
                                      CURLUPART_PORT};
    for (size_t i = 0; same && i < 3; i++) {
        char *p = NULL, *q = NULL;
        same = !curl_url_get(x, parts[i], &p, CURLU_DEFAULT_PORT) &&
               !curl_url_get(y, parts[i], &q, CURLU_DEFAULT_PORT) &&
               strcasecmp(p, q) == 0;
        curl_free(p);
        curl_free(q);
    }
    curl_url_cleanup(x);
    curl_url_cleanup(y);
    return same;
}

/* Neither another protocol nor from https back to http. */
static bool may_follow(const char *from, const char *to)
{
    return strncmp(to, "https://", 8) == 0 ||
           (strncmp(to, "http://", 7) == 0 &&
            strncmp(from, "https://", 8) != 0);
}

static CURLcode request(answer *a, const char *url)
{
    CURL *c = a->http->curl;
    char range[32];
    curl_easy_reset(c); /* connections stay open */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "lori");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, IDLE_S);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, a);
    if (a->http->token && same_host(url, a->http->endpoint))
        curl_easy_setopt(c, CURLOPT_HTTPHEADER, a->http->token);
    /* No If-Range: the part on disk is named by the hash of the whole and is
     * verified with it, while a redirect's host has ETags of its own. */
    if (a->sink->have > 0) {
        snprintf(range, sizeof range, "%lld-", (long long)a->sink->have);
        curl_easy_setopt(c, CURLOPT_RANGE, range);
    }
    return curl_easy_perform(c);
}

/* ---- what an answer means ---------------------------------------------- */

static lori_status refused(const answer *a, long code)
{
    bool token = a->http->token != NULL;
    const char *what = a->what, *end = a->http->endpoint;
    if (strcmp(a->error_code, "GatedRepo") == 0)
        return base_fail(a->err, LORI_IO,
                         "%s: access is gated (%ld): ask for it on the model's "
                         "page at %s, then give your token (HF_TOKEN or "
                         "--token-file)",
                         what, code, end);
    if (code == 401 || code == 403)
        return base_fail(a->err, LORI_IO,
                         "%s: %s does not allow it (%ld%s%s): it is private, "
                         "gated or does not exist; %s",
                         what, end, code, *a->error_text ? ", " : "",
                         a->error_text,
                         token ? "the token that was sent does not open it"
                               : "give a token (HF_TOKEN or --token-file)");
    if (code == 404)
        return base_fail(a->err, LORI_NOT_FOUND,
                         "%s: not found at %s (404%s%s); check the name and "
                         "the revision",
                         what, end, *a->error_code ? ", " : "", a->error_code);
    return base_fail(a->err, LORI_IO, "%s: %s answered %ld%s%s", what, end,
                     code, *a->error_text ? ", " : "", a->error_text);
}

static bool is_passing(long code)
{
    return code == 408 || code == 429 || code >= 500;
}

/* Errors of the connection that another attempt may not have. */
static bool may_pass(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
        return true;
    default:
        return false;
    }
}

typedef enum outcome { DONE, AGAIN, FAILED } outcome;

/* One request and its redirects. */
static outcome attempt(answer *a, const char *first_url)
{
    hub_http *http = a->http;
    char *url = base_strdup(first_url);
    long code = 0;
    CURLcode got = CURLE_OK;
    for (int hop = 0; url && hop <= REDIRECTS; hop++) {
        a->first = a->whole = -1;
        a->begun = false;
        a->ignored = 0;
        a->error_code[0] = a->error_text[0] = '\0';
        got = request(a, url);
        curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &code);
        const char *next = NULL;
        curl_easy_getinfo(http->curl, CURLINFO_REDIRECT_URL, &next);
        if (got || !next)
            break;
        if (!may_follow(url, next))
            got = CURLE_UNSUPPORTED_PROTOCOL;
        char *copied = base_strdup(next);
        free(url);
        url = copied;
        if (got)
            break;
    }
    free(url);
    hub_sink *sink = a->sink;
    if (a->status)
        return FAILED;
    if (got == CURLE_ABORTED_BY_CALLBACK) {
        a->status = base_fail(a->err, LORI_INTERRUPTED, "%s", a->what);
        return FAILED;
    }
    if (got) {
        a->status = base_fail(a->err, LORI_IO, "%s: %s (%s)", a->what,
                              curl_easy_strerror(got), http->endpoint);
        return may_pass(got) ? AGAIN : FAILED;
    }
    if (code == 416 && sink->have > 0) { /* our part fits no range of theirs */
        a->status = sink->restart(sink->context, a->err);
        sink->have = 0;
        return a->status ? FAILED : AGAIN;
    }
    if (code == 200 || code == 206) {
        if (sink->size < 0 || sink->have == sink->size)
            return DONE;
        a->status =
            base_fail(a->err, LORI_IO,
                      "%s: the connection ended after %lld of %lld "
                      "bytes",
                      a->what, (long long)sink->have, (long long)sink->size);
        return AGAIN;
    }
    a->status = refused(a, code);
    return is_passing(code) ? AGAIN : FAILED;
}

static lori_status wait_s(const hub_http *http, double seconds,
                          const char *what, lori_error *err)
{
    double end = base_now_s() + seconds;
    while (base_now_s() < end) {
        if (base_interrupted(http->ui))
            return base_fail(err, LORI_INTERRUPTED, "%s", what);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return LORI_OK;
}

lori_status hub_http_get(hub_http *http, const char *path, const char *what,
                         hub_sink *sink, lori_error *err)
{
    base_str url = {0};
    base_str_printf(&url, "%s%s", http->endpoint, path);
    if (url.failed)
        return base_no_memory(err, strlen(path));
    answer a = {.http = http, .sink = sink, .what = what, .err = err};
    double pause = FIRST_WAIT_S;
    for (int failures = 0;;) {
        int64_t had = sink->have;
        a.status = LORI_OK;
        outcome o = attempt(&a, url.s);
        if (o == DONE)
            break;
        if (sink->have > had && sink->size >= 0) { /* it gets on */
            failures = 0;
            pause = FIRST_WAIT_S;
        }
        if (o == FAILED || ++failures == ATTEMPTS)
            break;
        curl_off_t later = 0;
        curl_easy_getinfo(http->curl, CURLINFO_RETRY_AFTER, &later);
        double wait = later > 0 ? (double)later : pause;
        wait = wait < LONGEST_WAIT_S ? wait : LONGEST_WAIT_S;
        if (a.status && err)
            base_log(http->ui, LORI_LOG_INFO, "%s; trying again in %g s",
                     err->message, wait);
        pause *= 2;
        a.status = wait_s(http, wait, what, err);
        if (!a.status && sink->size < 0) { /* no part of it can be trusted */
            a.status = sink->restart(sink->context, err);
            sink->have = 0;
        }
        if (a.status)
            break;
    }
    base_str_free(&url);
    return a.status;
}
