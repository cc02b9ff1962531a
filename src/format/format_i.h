/* format_i.h - what the files of this room share and nobody else sees. */
#ifndef FORMAT_FORMAT_I_H
#define FORMAT_FORMAT_I_H

#include "format/format.h"

/* Text files over this are refused before memory is taken. */
#define FORMAT_TEXT_MAX ((size_t)1 << 30)

/* format_json_parse for a text whose first line is line `first_line` of its
 * file. */
lori_status format_json_parse_at(const char *bytes, size_t n, const char *name,
                                 int64_t first_line, json_t **out,
                                 lori_error *err);

#endif
