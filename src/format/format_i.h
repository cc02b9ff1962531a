/* format_i.h - what the files of this room share and nobody else sees. */
#ifndef FORMAT_FORMAT_I_H
#define FORMAT_FORMAT_I_H

#include "format/format.h"

/* Text files over this are refused before memory is taken. */
#define FORMAT_TEXT_MAX ((size_t)1 << 30)

/* s[0..n) as a JSON string with its quotes, other bytes kept (ascii: escaped
 * as \uXXXX). `s` is valid UTF-8. */
void format_json_quote(const char *s, size_t n, bool ascii, base_str *out);
/* format_json_parse for a text whose first line is line `first_line` of its
 * file. */
lori_status format_json_parse_at(const char *bytes, size_t n, const char *name,
                                 int64_t first_line, json_t **out,
                                 lori_error *err);

#endif
