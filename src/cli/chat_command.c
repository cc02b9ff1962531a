/* chat_command.c - the commands of `lori chat`: lines that start with '/'. */
#include "cli/chat.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages ----------------------------------------------------------- */

static const char *last_role(const chat *c)
{
    size_t n = json_array_size(c->messages);
    const char *role = json_string_value(
        json_object_get(n ? json_array_get(c->messages, n - 1) : NULL, "role"));
    return role ? role : "";
}

static void drop_last(chat *c)
{
    size_t n = json_array_size(c->messages);
    json_array_remove(c->messages, n - 1);
    if (c->first >= n - 1)
        c->first = 0;
}

static bool regenerate(chat *c, char *rest)
{
    (void)rest;
    if (strcmp(last_role(c), "assistant") != 0)
        return chat_fail("there is no reply yet to make again");
    size_t n = json_array_size(c->messages);
    json_t *old = json_incref(json_array_get(c->messages, n - 1));
    drop_last(c);
    bool good = chat_talk(c, NULL);
    if (!good) /* the old reply stays */
        json_array_append(c->messages, old);
    json_decref(old);
    return good;
}

static bool undo(chat *c, char *rest)
{
    (void)rest;
    if (json_array_size(c->messages) == 0)
        return chat_fail("there is nothing to undo");
    while (strcmp(last_role(c), "assistant") == 0)
        drop_last(c);
    if (strcmp(last_role(c), "user") == 0)
        drop_last(c);
    chat_note(c, "(the last message and its reply are gone; %zu are left)\n",
              json_array_size(c->messages));
    return true;
}

static bool clear(chat *c, char *rest)
{
    (void)rest;
    json_array_clear(c->messages);
    c->first = 0;
    chat_note(c, "(a new conversation%s)\n",
              c->system ? "; the system message stays" : "");
    return true;
}

static bool set_system(chat *c, char *rest)
{
    if (*rest) {
        free(c->system);
        c->system = strcmp(rest, "none") ? strdup(rest) : NULL;
    }
    if (c->system)
        chat_note(c, "(system message: %s)\n", c->system);
    else
        chat_note(c, "(no system message)\n");
    return true;
}

/* ---- files -------------------------------------------------------------- */

static bool remember(chat *c, const char *file)
{
    char *copy = strdup(file);
    free(c->file);
    c->file = copy;
    return true;
}

static json_t *with_system(const chat *c)
{
    json_t *all = json_array();
    if (c->system)
        json_array_append_new(
            all, json_pack("{ssss}", "role", "system", "content", c->system));
    json_array_extend(all, c->messages);
    return all;
}

/* The file appears whole or not at all. */
static bool save(chat *c, char *file)
{
    if (!*file)
        return chat_fail("/save needs a file name");
    bool own = c->file && strcmp(c->file, file) == 0;
    if (!own && access(file, F_OK) == 0)
        return chat_fail("'%s' exists; choose another name", file);
    char part[4096];
    int n = snprintf(part, sizeof part, "%s.tmp-%ld", file, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof part)
        return chat_fail("the file name is too long");
    FILE *f = fopen(part, "wx");
    if (!f)
        return chat_fail("cannot write '%s': %s", file, strerror(errno));
    json_t *all = with_system(c);
    bool good =
        json_dumpf(all, f, JSON_INDENT(2)) == 0 && fputc('\n', f) != EOF;
    json_decref(all);
    good &= fflush(f) == 0 && fsync(fileno(f)) == 0;
    good &= fclose(f) == 0;
    if (!good || rename(part, file) != 0) {
        chat_fail("cannot write '%s': %s", file, strerror(errno));
        unlink(part);
        return false;
    }
    chat_note(c, "(%zu messages saved to %s)\n", json_array_size(c->messages),
              file);
    return remember(c, file);
}

/* [{"role": ..., "content": "..."}, ...], a system message only first. */
static bool is_conversation(const json_t *list)
{
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (!role || !json_string_value(json_object_get(m, "content")) ||
            (strcmp(role, "system") == 0 && i > 0))
            return false;
    }
    return json_is_array(list);
}

static bool load(chat *c, char *file)
{
    json_error_t place;
    if (!*file)
        return chat_fail("/load needs a file name");
    json_t *list = json_load_file(file, JSON_REJECT_DUPLICATES, &place);
    if (!list)
        return place.line > 0 ? chat_fail("%s:%d:%d: %s", file, place.line,
                                          place.column, place.text)
                              : chat_fail("%s", place.text);
    if (!is_conversation(list)) {
        json_decref(list);
        return chat_fail("'%s' is not a conversation: a list of objects with "
                         "role and content was expected, the system message "
                         "first",
                         file);
    }
    const json_t *first = json_array_get(list, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    free(c->system);
    c->system = NULL;
    if (role && strcmp(role, "system") == 0) {
        c->system =
            strdup(json_string_value(json_object_get(first, "content")));
        json_array_remove(list, 0);
    }
    json_decref(c->messages);
    c->messages = list;
    c->first = 0;
    chat_note(c, "(%zu messages from %s)\n", json_array_size(list), file);
    return remember(c, file);
}

/* ---- adapters ----------------------------------------------------------- */

static bool list_adapters(const chat *c)
{
    const char *name;
    for (int64_t i = 0; (name = lori_session_adapter_name(c->session, i)); i++)
        chat_note(c, "%s %s%s%s\n",
                  strcmp(*name ? name : "default",
                         c->adapter ? c->adapter : "default")
                      ? " "
                      : "*",
                  *name ? name : "default", *name ? "" : "  ",
                  *name ? "" : c->unnamed);
    bool none = c->adapter ? strcmp(c->adapter, "none") == 0 : !c->unnamed;
    chat_note(c, "%s none  the base alone\n", none ? "*" : " ");
    return true;
}

static bool is_open(const chat *c, const char *name)
{
    const char *have;
    for (int64_t i = 0; (have = lori_session_adapter_name(c->session, i)); i++)
        if (*have && strcmp(have, name) == 0)
            return true;
    return strcmp(name, "none") == 0;
}

/* NAME chooses, NAME=DIR opens and chooses, nothing lists. */
static bool set_adapter(chat *c, char *rest)
{
    if (!*rest)
        return list_adapters(c);
    char *folder = strchr(rest, '=');
    if (folder) {
        lori_error err = {0};
        *folder++ = '\0';
        if (lori_session_add_adapter(c->session, rest, folder, cli_ui(), &err))
            return chat_fail("%s", err.message);
    }
    bool unnamed = c->unnamed && strcmp(rest, "default") == 0;
    if (!unnamed && !is_open(c, rest))
        return chat_fail("no adapter '%s' is open; /adapter lists them, "
                         "/adapter %s=DIR opens one",
                         rest, rest);
    free(c->adapter);
    c->adapter = unnamed ? NULL : strdup(rest);
    chat_note(c, "(adapter %s from the next reply on)\n", chat_adapter_name(c));
    return true;
}

/* ---- settings ----------------------------------------------------------- */

static void show_setting(const chat *c, const cli_option *o)
{
    char value[64] = "as the model says";
    if (o->kind == CLI_FLAG)
        snprintf(value, sizeof value, "%s", *(bool *)o->at ? "on" : "off");
    else if (o->kind == CLI_SEED)
        snprintf(value, sizeof value, "%llu",
                 (unsigned long long)*(uint64_t *)o->at);
    else if (o->kind == CLI_INT && *(int64_t *)o->at != INT64_MIN)
        snprintf(value, sizeof value, "%lld", (long long)*(int64_t *)o->at);
    else if (o->kind == CLI_REAL && !isnan(*(double *)o->at))
        snprintf(value, sizeof value, "%g", *(double *)o->at);
    chat_note(c, "  %-20s %-18s %s\n", o->name, value, o->help);
}

static bool set(chat *c, char *rest)
{
    size_t n = strcspn(rest, " =");
    char *value = rest + n + strspn(rest + n, " =");
    rest[n] = '\0';
    for (char *p = rest; *p; p++)
        *p = *p == '_' ? '-' : *p;
    const char *names[CHAT_SETTINGS];
    for (size_t i = 0; i < CHAT_SETTINGS; i++) {
        const cli_option *o = &c->settings[i];
        names[i] = o->name;
        if (*rest && strcmp(o->name, rest) != 0)
            continue;
        if (*rest && *value && !cli_option_set(o, value))
            return chat_fail("%s does not take '%s'%s", o->name, value,
                             o->kind == CLI_FLAG ? ": on or off" : "");
        show_setting(c, o);
        if (*rest)
            return true;
    }
    if (!*rest)
        return true;
    const char *near = lori_nearest(rest, names, CHAT_SETTINGS);
    return near ? chat_fail("there is no setting '%s'; did you mean '%s'?",
                            rest, near)
                : chat_fail("there is no setting '%s'; /set lists them", rest);
}

/* ---- the table ---------------------------------------------------------- */

static bool quit(chat *c, char *rest)
{
    (void)rest;
    return c->quit = true;
}

static bool help(chat *c, char *rest);

static const struct {
    const char *name, *takes, *about;
    bool (*run)(chat *c, char *rest);
} commands[] = {
    {"adapter", "[NAME[=DIR]]", "list adapters; use one; open one; none",
     set_adapter},
    {"system", "[TEXT]", "show or set the system message; none", set_system},
    {"regen", "", "make the last reply again, with another seed", regenerate},
    {"undo", "", "take back the last message and its reply", undo},
    {"clear", "", "start a new conversation", clear},
    {"save", "FILE", "write the conversation as JSON messages", save},
    {"load", "FILE", "go on with a saved conversation", load},
    {"set", "[NAME [VALUE]]", "show or change a setting, as temperature 0.7",
     set},
    {"help", "", "this", help},
    {"quit", "", "leave, as Ctrl-D does", quit},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static bool help(chat *c, char *rest)
{
    (void)rest;
    for (size_t i = 0; i < N_COMMANDS; i++)
        chat_note(c, "  /%-8s %-15s %s\n", commands[i].name, commands[i].takes,
                  commands[i].about);
    chat_note(
        c, "\nSeveral lines: paste them, or put them between two lines of "
           "\"\"\".\nA message that starts with '/': write '//'. Ctrl-C stops "
           "a reply; what there is\nof it stays. When the context is full, the "
           "oldest messages are left out if you\nagree (/set drop-oldest on: "
           "always); they stay in /save.\n");
    return true;
}

bool chat_command(chat *c, char *line)
{
    size_t n = strcspn(++line, " \t\n");
    char *rest = line + n + strspn(line + n, " \t\n");
    if (line[n])
        line[n] = '\0';
    for (size_t end = strlen(rest); end && strchr(" \t\n", rest[end - 1]);
         end--)
        rest[end - 1] = '\0';
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(line, names[i]) == 0)
            return commands[i].run(c, rest);
    }
    const char *near = lori_nearest(line, names, N_COMMANDS);
    return near
               ? chat_fail("there is no command '/%s'; did you mean '/%s'?",
                           line, near)
               : chat_fail("there is no command '/%s'; /help lists them", line);
}
