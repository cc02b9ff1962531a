/* hub.c - what the environment says about Hugging Face's cache and hub. The
 * rules are those of huggingface_hub (its constants.py, release 2.4). */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATH_BYTES 4096

/* The variable's value; NULL when it is not set or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *value)
{
    static const char *const yes[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < 4; i++)
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    return false;
}

/* "~/x" with the home folder, then "/name" behind; "" when it is too long. */
static void place(const char *folder, const char *name, char out[PATH_BYTES])
{
    const char *home = folder[0] == '~' && (folder[1] == '/' || !folder[1])
                           ? variable("HOME")
                           : NULL;
    int n = snprintf(out, PATH_BYTES, "%s%s%s", home ? home : "",
                     home ? folder + 1 : folder, name);
    if (n < 0 || n >= PATH_BYTES)
        out[0] = '\0';
}

/* HF_HOME, else huggingface in XDG_CACHE_HOME or ~/.cache; `name` behind. */
static void home_place(const char *name, char out[PATH_BYTES])
{
    char behind[128];
    const char *home = variable("HF_HOME"), *xdg = variable("XDG_CACHE_HOME");
    snprintf(behind, sizeof behind, "/huggingface%s", name);
    if (home)
        place(home, name, out);
    else
        place(xdg ? xdg : "~/.cache", behind, out);
}

const char *cli_hub_cache(void)
{
    static char cache[PATH_BYTES];
    const char *given = variable("HF_HUB_CACHE");
    if (!given)
        given = variable("HUGGINGFACE_HUB_CACHE"); /* its older name */
    if (given)
        place(given, "", cache);
    else
        home_place("/hub", cache);
    return cache[0] ? cache : NULL;
}

bool cli_hub_offline(void)
{
    const char *hub = variable("HF_HUB_OFFLINE");
    return is_true(hub ? hub : variable("TRANSFORMERS_OFFLINE"));
}

const char *cli_hub_endpoint(void)
{
    return variable("HF_ENDPOINT");
}

/* The first word of a file; `bytes` holds it. */
static bool read_word(const char *path, char *bytes, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(bytes, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    bytes[n] = '\0';
    size_t from = strspn(bytes, " \t\r\n");
    size_t len = strcspn(bytes + from, " \t\r\n");
    memmove(bytes, bytes + from, len);
    bytes[len] = '\0';
    return f != NULL;
}

bool cli_hub_token(const char *file, const char **token)
{
    static char word[1024];
    char path[PATH_BYTES];
    *token = NULL;
    if (file) {
        if (!read_word(file, word, sizeof word) || !word[0]) {
            fprintf(stderr, "lori: --token-file %s: there is no token in it\n",
                    file);
            return false;
        }
        *token = word;
        return true;
    }
    if (is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN")))
        return true;
    const char *given = variable("HF_TOKEN");
    if (!given)
        given = variable("HUGGING_FACE_HUB_TOKEN"); /* its older name */
    const char *stored = variable("HF_TOKEN_PATH");
    if (given)
        snprintf(word, sizeof word, "%.*s", (int)strcspn(given, "\r\n"), given);
    else if (stored)
        place(stored, "", path);
    else
        home_place("/token", path);
    if (!given)
        read_word(path, word, sizeof word);
    *token = word[0] ? word : NULL;
    return true;
}
