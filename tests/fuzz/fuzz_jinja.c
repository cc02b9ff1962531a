/* fuzz_jinja.c - bytes are a chat template: it must be refused with a message
 * that names it, or render twice to the same valid UTF-8, or fail so. */
#include "fuzz/fuzz.h"

#include "format/format.h"
#include "text/jinja_i.h"

static const char CONTEXT[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" S \"},{\"role\":"
    "\"user\",\"content\":[{\"type\":\"text\",\"text\":\"u\\u00e9\"}]},"
    "{\"role\":\"assistant\",\"content\":\"a<b\",\"tool_calls\":[{\"id\":\"x\","
    "\"function\":{\"name\":\"f\",\"arguments\":{\"k\":1.5,\"l\":[true,null]}}}"
    "]}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
    "\"documents\":null,\"add_generation_prompt\":true,\"bos_token\":\"<s>\","
    "\"n\":3,\"f\":-2.5,\"s\":\"Stra\\u00dfe \\u03a3\\ud83d\\ude00\","
    "\"d\":{\"a\":1,\"B\":[1,2]},\"words\":[\"b\",\"A\",\"c\"]}";

static lori_status try_render(const jinja_template *t, json_t *context,
                              base_str *out, lori_error *err)
{
    lori_status st = jinja_render(t, context, 86400, out, err);
    if (st != LORI_OK)
        FUZZ_CHECK(out->len == 0 && strncmp(err->message, "fuzz:", 5) == 0);
    else if (out->len)
        FUZZ_CHECK(base_utf8_valid(out->s, out->len) == out->len);
    return st;
}

int fuzz_jinja(const uint8_t *data, size_t n)
{
    jinja_template *t = NULL;
    json_t *context = NULL;
    base_str out[2] = {{0}, {0}};
    lori_error err[2] = {{0}, {0}};
    if (jinja_compile((const char *)data, n, "fuzz", &t, &err[0]) != LORI_OK) {
        FUZZ_CHECK(!t && strncmp(err[0].message, "fuzz:", 5) == 0);
        return 0;
    }
    FUZZ_CHECK(format_json_parse(CONTEXT, sizeof CONTEXT - 1, "context",
                                 &context, &err[0]) == LORI_OK);
    lori_status first = try_render(t, context, &out[0], &err[0]);
    lori_status second = try_render(t, context, &out[1], &err[1]);
    FUZZ_CHECK(first == second && strcmp(err[0].message, err[1].message) == 0);
    FUZZ_CHECK(out[0].len == out[1].len &&
               (!out[0].len || memcmp(out[0].s, out[1].s, out[0].len) == 0));
    base_str_free(&out[0]);
    base_str_free(&out[1]);
    json_decref(context);
    jinja_template_free(t);
    return 0;
}

FUZZ_TARGET(fuzz_jinja)
