/* fuzz_json.c - JSON text: what parses must print to text that parses to the
 * same value, in every style. */
#include "fuzz/fuzz.h"

#include "format/format.h"

int fuzz_json(const uint8_t *data, size_t n)
{
    json_t *value = NULL, *again = NULL;
    lori_error err = {0};
    if (format_json_parse((const char *)data, n, "fuzz", &value, &err) !=
        LORI_OK) {
        FUZZ_CHECK(!value && err.message[0]);
        return 0;
    }
    for (unsigned flags = 0; flags < 8; flags++) {
        base_str text = {0};
        format_json_text(value, flags, &text);
        FUZZ_CHECK(!text.failed);
        FUZZ_CHECK(format_json_parse(text.s, text.len, "again", &again, &err) ==
                   LORI_OK);
        FUZZ_CHECK(json_equal(value, again));
        json_decref(again);
        base_str_free(&text);
    }
    json_decref(value);
    return 0;
}

FUZZ_TARGET(fuzz_json)
