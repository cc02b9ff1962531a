/* session_i.h - the inside of a session, for generation and scoring. */
#ifndef JOB_SESSION_I_H
#define JOB_SESSION_I_H

#include "job/job_i.h"

typedef struct session_adapter {
    char *folder;
    char *name; /* "": the default one of lori_session_options.adapter */
    model_adapter *ma;
    uint64_t key; /* from 1; infer_request.adapter_key */
} session_adapter;

/* What the model folder says where a request says nothing; 0: unset. */
typedef struct session_defaults {
    bool do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k, max_new_tokens, min_new_tokens, max_length;
} session_defaults;
/* generation_config.json of a model folder, or config.json without it. Logs
 * what it takes and warns of settings that it cannot honour. */
lori_status session_defaults_load(const char *folder, session_defaults *out,
                                  const lori_ui *ui, lori_error *err);

struct lori_session {
    char *folder; /* of the model */
    backend *be;
    model *model;
    text_tokenizer *tok;
    char *chat_template; /* lori_session_options.chat_template */
    text_chat *chat;     /* NULL: why not is told when one is wanted */
    lori_status chat_status;
    lori_error chat_error;
    infer_engine *engine;
    session_adapter *adapters;
    int64_t n_adapters;
    session_defaults defaults;
    char *hub_cache; /* where adapters that come later are looked for */
    base_dtype dtype;
    int64_t max_batch, cache_bytes;
};

/* The adapter that a request's `name` chooses: NULL ma and key 0 for the base
 * alone. An unknown name is LORI_NOT_FOUND with the nearest one. */
lori_status session_find_adapter(const lori_session *s, const char *name,
                                 session_adapter *out, lori_error *err);

/* Ids of the prompt: text, ids, messages, or text as a user's message. Empty
 * ones, ids outside the vocabulary and several kinds at once are errors. */
lori_status session_prompt_ids(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err);

/* One lori_generate_options on its way through the engine: its requests (one a
 * reply), their results and texts. */
typedef struct session_reply {
    infer_text *text;
    base_str shown; /* the text so far */
    int64_t stop;   /* index of the stop string reached, -1 */
    double first_s; /* time of the first token; 0: none yet */
} session_reply;
typedef struct session_ask {
    const lori_session *s;
    const lori_stream *stream; /* NULL: none */
    int64_t index;             /* lori_stream's `request` */
    text_ids prompt;
    int64_t n;               /* replies */
    infer_request *requests; /* [n] */
    infer_result *results;   /* [n] */
    session_reply *replies;  /* [n] */
    infer_bias *bias;
    int32_t *stops;
    const char *adapter; /* name, for the report */
    bool logprobs;
    double start_s;
    lori_status status; /* first failure inside a hook */
    lori_error *err;
} session_ask;
/* Checks and resolves all options. What `o` points to must live until `free`,
 * which takes a zeroed ask, too. */
lori_status session_ask_init(session_ask *ask, const lori_session *s,
                             const lori_generate_options *o, lori_error *err);
void session_ask_free(session_ask *ask);
/* A token of reply k. */
infer_next session_ask_token(session_ask *ask, int64_t k, int32_t id);
/* Shows what the texts still held back; after the last token. */
lori_status session_ask_end(session_ask *ask, lori_error *err);
/* Runs all asks, initialised with err, to their ends; their index and stream
 * are set here. */
lori_status session_run(const lori_session *s, session_ask *asks, int64_t n,
                        const lori_stream *stream, const lori_ui *ui,
                        lori_error *err);
/* What the report says, new reference. */
json_t *session_ask_facts(const session_ask *ask);

/* A row of a file as options: those of `defaults`, changed by the row. */
typedef struct session_row {
    json_t *object;
    lori_generate_options o;
    base_str messages, tools, documents, kwargs; /* texts that o points to */
    const char **stop;
    lori_logit_bias *bias;
} session_row;
/* Errors name `file` and the key. `index` changes the seed. */
lori_status session_row_init(session_row *row, const json_t *object,
                             const char *file,
                             const lori_generate_options *defaults,
                             int64_t index, lori_error *err);
void session_row_free(session_row *row);
/* Whether the program reads this key of a row. */
bool session_row_known(const char *key);

json_t *session_ids_json(const int32_t *ids, int64_t n); /* new reference */

#endif
