/* chat.h - what the files of `lori chat` share: the conversation, reading
 * lines, and what is on the screen. May include lori.h and nothing else of
 * ours. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include <jansson.h>

#include "cli/cli.h"

/* ---- input ------------------------------------------------------------- */

/* An editor of lines with a history, over libedit (chat_edit.c). NULL when this
 * build has none or the terminal cannot do it. */
typedef struct chat_edit chat_edit;
chat_edit *chat_edit_open(bool color);
/* The next line, malloc'd, without its end; lines that were pasted together
 * are one. NULL at the end of input. */
char *chat_edit_line(chat_edit *edit, const char *prompt);
void chat_edit_close(chat_edit *edit);

/* ---- the conversation --------------------------------------------------- */

#define CHAT_SETTINGS 12

typedef struct chat {
    lori_session *session;
    const char *model;   /* as the user named it */
    const char *unnamed; /* folder of the adapter without a name, or NULL */
    json_t *messages;    /* role, content, and "partial" if it was stopped */
    char *system;        /* NULL: none */
    size_t first;        /* oldest message that is still sent */
    char *adapter;       /* a name, "none", or NULL: the unnamed one */
    char *file;          /* last saved or loaded: may be replaced */
    uint64_t asked;      /* requests so far: each draws with its own seed */

    /* What --NAME and /set NAME change, one table for both. */
    cli_option settings[CHAT_SETTINGS];
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, max_new_tokens;
    uint64_t seed;
    bool greedy, drop_oldest;

    chat_edit *edit; /* NULL: plain lines */
    bool terminal;   /* a person reads and writes */
    bool color, json;
    bool quit;
} chat;

/* The next message or command: a line, or the lines between two lines of
 * three quotes. NULL at the end of input. Caller frees. */
char *chat_read(chat *c, const char *prompt);
/* Asks on the terminal; false where there is none. */
bool chat_agrees(chat *c, const char *question);

/* Adds the user's message and asks for the reply; without text, asks for the
 * last reply once more. The reply is streamed and kept, also when it was
 * stopped. False after a printed error; then the message is not kept. */
bool chat_talk(chat *c, const char *text);
/* A line that starts with '/'. False after a printed error. */
bool chat_command(chat *c, char *line);
/* Name of the adapter in use, for people. */
const char *chat_adapter_name(const chat *c);

/* printf for a person, dim where colours are on; on stderr through pipes. */
void chat_note(const chat *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* "lori: ..." on stderr; returns false. */
bool chat_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
