/* chat_edit.c - editing of lines with a history, over libedit. Lines that are
 * pasted together stay one message (the terminal brackets them). Without
 * libedit: chat_edit_none.c. */
#include "cli/chat.h"

#include <histedit.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <wchar.h>

struct chat_edit {
    EditLine *line;
    History *history;
    char file[PATH_MAX]; /* of the history; "": not kept */
    char prompt[320];
    bool color;
};

#define HISTORY_LINES 1000

/* ---- keys --------------------------------------------------------------- */

/* Ctrl-C: the line is thrown away, as in a shell. */
static unsigned char on_stop(EditLine *line, int key)
{
    (void)key;
    const LineInfo *info = el_line(line);
    el_cursor(line, (int)(info->lastchar - info->cursor));
    el_deletestr(line, (int)(info->lastchar - info->buffer));
    return CC_REFRESH;
}

/* Alt-Enter: a new line within the message. */
static unsigned char on_break(EditLine *line, int key)
{
    (void)key;
    return el_insertstr(line, "\n") == 0 ? CC_REFRESH : CC_ERROR;
}

/* Everything up to ESC [ 201 ~ is text, line ends too. */
static unsigned char on_paste(EditLine *line, int key)
{
    static const wchar_t end[] = L"\033[201~";
    size_t seen = 0;
    wchar_t c = 0;
    bool full = false; /* then the rest must still not be taken for keys */
    (void)key;
    while (seen < 6 && el_wgetc(line, &c) == 1) {
        if (c == end[seen]) {
            seen++;
            continue;
        }
        seen = c == end[0];
        wchar_t text[2] = {c == L'\r' ? L'\n' : c, 0};
        bool plain = text[0] >= 0x20 && text[0] != 0x7f;
        if (!full && (plain || text[0] == L'\n' || text[0] == L'\t'))
            full = el_winsertstr(line, text) != 0;
    }
    return full ? CC_ERROR : CC_REFRESH;
}

static char *get_prompt(EditLine *line)
{
    chat_edit *e = NULL;
    el_get(line, EL_CLIENTDATA, &e);
    return e->prompt;
}

/* ---- history ------------------------------------------------------------ */

/* XDG_STATE_HOME/lori/chat_history, ~/.local/state when it is not set. */
static void find_history(chat_edit *e)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    const char *root = state && *state ? state : home;
    if (!root || !*root)
        return;
    static const char *const parts[] = {"/.local", "/state", "/lori",
                                        "/chat_history"};
    int n = snprintf(e->file, sizeof e->file, "%s", root);
    for (size_t i = root == state ? 2 : 0; i < 4 && n < PATH_MAX; i++) {
        mkdir(e->file, 0700);
        n += snprintf(e->file + n, sizeof e->file - (size_t)n, "%s", parts[i]);
    }
    if (n >= PATH_MAX)
        e->file[0] = '\0';
}

/* ---- lines -------------------------------------------------------------- */

static void set_keys(chat_edit *e)
{
    EditLine *l = e->line;
    el_set(l, EL_EDITOR, "emacs");
    el_set(l, EL_ADDFN, "lori-stop", "forget the line", on_stop);
    el_set(l, EL_ADDFN, "lori-break", "a line end in the message", on_break);
    el_set(l, EL_ADDFN, "lori-paste", "pasted text", on_paste);
    el_set(l, EL_SETTY, "-d", "intr=", NULL); /* ^C is a key while editing */
    el_set(l, EL_BIND, "^C", "lori-stop", NULL);
    el_set(l, EL_BIND, "\033\r", "lori-break", NULL);
    el_set(l, EL_BIND, "\033\n", "lori-break", NULL);
    el_set(l, EL_BIND, "\033[200~", "lori-paste", NULL);
    el_set(l, EL_BIND, "^R", "em-inc-search-prev", NULL);
}

chat_edit *chat_edit_open(bool color)
{
    HistEvent event;
    chat_edit *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->color = color;
    e->line = el_init("lori", stdin, stdout, stderr);
    e->history = history_init();
    if (!e->line || !e->history) {
        chat_edit_close(e);
        return NULL;
    }
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_PROMPT_ESC, get_prompt, '\1');
    el_set(e->line, EL_SIGNAL, 1);
    el_set(e->line, EL_HIST, history, e->history);
    set_keys(e);
    history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    history(e->history, &event, H_SETUNIQUE, 1);
    find_history(e);
    if (e->file[0])
        history(e->history, &event, H_LOAD, e->file);
    return e;
}

char *chat_edit_line(chat_edit *e, const char *prompt)
{
    int n = 0, last = (int)strlen(prompt) - 1;
    /* Escape codes go before a character: libedit drops those at the end. */
    if (e->color)
        snprintf(e->prompt, sizeof e->prompt, "\1\033[1;36m\1%.*s\1\033[0m\1%s",
                 last, prompt, prompt + last);
    else
        snprintf(e->prompt, sizeof e->prompt, "%s", prompt);
    fputs("\033[?2004h", stdout); /* pasted text comes in brackets */
    fflush(stdout);
    /* Before the prompt, where el_gets does it after: a Ctrl-D that comes at
     * once would else be lost in the terminal's change of mode. */
    el_set(e->line, EL_PREP_TERM, 1);
    const char *got = el_gets(e->line, &n);
    fputs("\033[?2004l", stdout);
    fflush(stdout);
    if (!got || n <= 0)
        return NULL;
    char *text = strndup(got, (size_t)n);
    while (text && n > 0 && text[n - 1] == '\n') /* a paste may end in one */
        text[--n] = '\0';
    HistEvent event;
    if (text && *text)
        history(e->history, &event, H_ENTER, text);
    return text;
}

void chat_edit_close(chat_edit *e)
{
    if (!e)
        return;
    HistEvent event;
    if (e->history && e->file[0])
        history(e->history, &event, H_SAVE, e->file);
    if (e->line)
        el_end(e->line);
    if (e->history)
        history_end(e->history);
    free(e);
}
