/* hub_name.c - names of the hub and the places they have in the cache. Refuses
 * whatever could leave the cache folder. Includes base and libc. */
#include <ctype.h>
#include <stdlib.h>

#include "hub/hub_i.h"

#define PART_MAX 96 /* huggingface_hub's bound on a name */

char *hub_path(const char *folder, const char *part, const char *name)
{
    base_str path = {0};
    base_str_printf(&path, "%s/%s/%s", folder, part, name);
    return base_str_take(&path);
}

bool hub_is_hex(const char *s, size_t n)
{
    return strspn(s, "0123456789abcdef") == n && s[n] == '\0';
}

bool hub_path_is_safe(const char *path)
{
    if (strlen(path) > 1024)
        return false;
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && *p == '.') || (n == 2 && !memcmp(p, "..", 2)))
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\')
                return false;
        p += n;
        if (!*p)
            return true;
    }
}

/* Length of "org/name" or "name" at the start of `text`; 0: it is none. */
static size_t repo_length(const char *text)
{
    size_t at = 0, slashes = 0, part = 0;
    for (; text[at] && text[at] != '@'; at++) {
        char c = text[at];
        if (c == '/' && part > 0 && ++slashes == 1) {
            part = 0;
            continue;
        }
        bool inside = isalnum((unsigned char)c) || c == '_';
        /* "..", "--" and a point or dash at the start are not names. */
        bool mark = (c == '-' || c == '.') && part > 0 && !(text[at - 1] == c);
        if ((!inside && !mark) || ++part > PART_MAX)
            return 0;
    }
    return part && !strchr("-.", text[at - 1]) ? at : 0;
}

bool hub_name_is(const char *text)
{
    size_t n = repo_length(text);
    return n && (text[n] == '\0' || hub_path_is_safe(text + n + 1));
}

lori_status hub_name_parse(const char *text, const char *revision,
                           const char *cache, hub_name *out, lori_error *err)
{
    *out = (hub_name){0};
    size_t n = repo_length(text);
    if (!n)
        return base_fail(err, LORI_INVALID,
                         "'%s' is not a name of the hub: org/name or "
                         "org/name@revision",
                         text);
    if (text[n] == '@' && revision)
        return base_fail(err, LORI_INVALID,
                         "two revisions: '%s' behind the name and '%s'",
                         text + n + 1, revision);
    if (!revision)
        revision = text[n] == '@' ? text + n + 1 : "main";
    if (!hub_path_is_safe(revision))
        return base_fail(err, LORI_INVALID, "'%s' is not a revision", revision);
    base_str folder = {0};
    base_str_printf(&folder, "%s/models--", cache);
    for (size_t i = 0; i < n; i++)
        base_str_add(&folder, text[i] == '/' ? "--" : text + i,
                     text[i] == '/' ? 2 : 1);
    out->folder = base_str_take(&folder);
    out->repo = base_strndup(text, n);
    out->revision = base_strdup(revision);
    if (out->folder && out->repo && out->revision)
        return LORI_OK;
    hub_name_free(out);
    return base_no_memory(err, n);
}

void hub_name_free(hub_name *name)
{
    free(name->repo);
    free(name->revision);
    free(name->folder);
    *name = (hub_name){0};
}
