/* chat_edit_none.c - the build without libedit: plain lines, as the terminal
 * itself edits them. */
#include "cli/chat.h"

chat_edit *chat_edit_open(bool color)
{
    (void)color;
    return NULL;
}

char *chat_edit_line(chat_edit *edit, const char *prompt)
{
    (void)edit, (void)prompt;
    return NULL;
}

void chat_edit_close(chat_edit *edit)
{
    (void)edit;
}
