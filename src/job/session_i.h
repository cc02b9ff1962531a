/* session_i.h - the inside of a session, for generation and scoring. */
#ifndef JOB_SESSION_I_H
#define JOB_SESSION_I_H

#include "job/job_i.h"

struct lori_session {
    backend *be;
    model *model;
    text_tokenizer *tok;
    model_adapter *adapter; /* NULL: the base alone */
};

/* Ids of the prompt (text, chat-formatted text, or ids as given). */
lori_status session_prompt_ids(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err);
/* The adapter's largest rank; 0 without one. */
int64_t session_rank(const lori_session *s);
json_t *session_ids_json(const int32_t *ids, int64_t n); /* new reference */

#endif
