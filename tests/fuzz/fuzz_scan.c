/* fuzz_scan.c - any bytes read as a stream of JSON. What the stream takes for
 * one value, read to its end, must be what jansson takes for one, but for
 * duplicate keys, numbers and words, which a stream does not look into; and a
 * text that jansson accepts, the stream accepts. */
#include <jansson.h>
#include <stdlib.h>

#include "fuzz/fuzz.h"

#include "format/format.h"

/* Strings are read, lists and objects entered by turns or skipped. */
static lori_status walk_values(format_scan *scan, int depth, lori_error *err)
{
    const char *s;
    size_t n;
    bool more, good;
    int64_t value;
    int c = format_scan_peek(scan);
    if (c == '"')
        return format_scan_string(scan, &s, &n, err);
    if (c == '-' || (c >= '0' && c <= '9'))
        return format_scan_int(scan, -1000, 1000, &value, &good, err);
    if ((c != '[' && c != '{') || depth == 0)
        return format_scan_skip(scan, &s, &n, err);
    BASE_TRY(format_scan_open(scan, (char)c, err));
    for (;;) {
        BASE_TRY(format_scan_more(scan, c == '[' ? ']' : '}', &more, err));
        if (!more)
            return LORI_OK;
        if (c == '{')
            BASE_TRY(format_scan_key(scan, &s, &n, err));
        BASE_TRY(walk_values(scan, depth - 1, err));
    }
}

int fuzz_scan(const uint8_t *data, size_t n)
{
    format_scan scan;
    lori_error err = {0};
    json_t *tree = NULL;
    const char *bytes = (const char *)data;
    lori_status st = format_scan_start(&scan, bytes, n, "fuzz.json", &err);
    if (st == LORI_OK)
        st = walk_values(&scan, 8, &err);
    if (st == LORI_OK)
        st = format_scan_end(&scan, &err);
    FUZZ_CHECK(st == LORI_OK || err.message[0]);
    FUZZ_CHECK(st != LORI_OK || scan.at <= n);
    format_scan_free(&scan);
    if (format_json_parse(bytes, n, "fuzz.json", &tree, NULL) == LORI_OK)
        FUZZ_CHECK(st == LORI_OK || strstr(err.message, "nested too deep"));
    json_decref(tree);
    return 0;
}

FUZZ_TARGET(fuzz_scan)
