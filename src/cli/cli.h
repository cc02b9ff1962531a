/* cli.h - what the program's files share: options, the terminal, commands.
 * Only here do exit codes, stdout, signals and the environment exist.
 * May include lori.h and nothing else of ours. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "lori.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

typedef enum cli_kind {
    CLI_FLAG,  /* bool */
    CLI_TEXT,  /* const char * */
    CLI_INT,   /* int64_t */
    CLI_SEED,  /* uint64_t */
    CLI_REAL,  /* double */
    CLI_DTYPE, /* lori_dtype */
    CLI_LIST   /* cli_list: may be given several times */
} cli_kind;

typedef struct cli_list {
    char **items; /* copies; freed by cli_list_free */
    int64_t n;
} cli_list;
void cli_list_free(cli_list *list);

typedef struct cli_option {
    const char *name; /* without "--" */
    cli_kind kind;
    void *at;
    const char *value; /* what it takes, for --help: "DIR" */
    const char *help;
} cli_option;

/* What a command's parser knows. `positional` are filled in order; the last
 * of `n_needed` may not be missing. */
typedef struct cli_syntax {
    const char *usage; /* "lori import X.gguf OUT [options]" */
    const char *about; /* a line or two */
    const cli_option *options;
    size_t n_options;
    const char **positional;
    size_t n_positional, n_needed;
    /* train: unknown options and key=value words are collected here */
    cli_list *overrides;
} cli_syntax;

/* Parses argv[1..). Returns -1 to go on, else the exit code to end with
 * (after --help, or an error that was printed). Every command has --json and
 * --help. */
int cli_parse(const cli_syntax *syntax, int argc, char **argv, bool *json);

/* Stores `text` as the option's value (a flag: on or off); false when it is
 * not one. */
bool cli_option_set(const cli_option *option, const char *text);

/* Prints the report (JSON or text) or the error; frees the report. */
int cli_finish(lori_status status, lori_report *report, const lori_error *err,
               bool json);

/* Callbacks for the terminal: progress on stderr (a bar when it is one, plain
 * lines otherwise), Ctrl-C. */
const lori_ui *cli_ui(void);
void cli_ui_end(void); /* ends a bar's line */
int cli_columns(void); /* of the terminal; 80 where there is none */
void cli_signals(void);
/* From now on Ctrl-C, however often, only asks what runs to stop. */
void cli_signals_patient(void);
bool cli_interrupted(void); /* Ctrl-C since the start, or the last clear */
void cli_interrupt_clear(void);

/* "1,2,3" to ids; false when it is not a list of numbers. Caller frees. */
bool cli_read_ids(const char *text, int32_t **ids, int64_t *n);
/* Prints that --ids does not take this; EXIT_USAGE. */
int cli_bad_ids(const char *text);

/* --adapter DIR and --adapter NAME=DIR, given several times, as a session
 * takes them. The first one given is used where no name is chosen. */
typedef struct cli_adapters {
    cli_list words; /* where CLI_LIST puts them */
    lori_named_adapter *named;
    const char *chosen; /* --use NAME, else the first one's name or NULL */
} cli_adapters;
/* Fills options->adapter, ->adapters, ->n_adapters and ->hub_cache. -1 to go
 * on, or an exit code after a printed error. */
int cli_adapters_open(cli_adapters *a, lori_session_options *options);
void cli_adapters_free(cli_adapters *a);

/* LORI_ISA: the instruction set to compute with, for tests. NULL: the best. */
const char *cli_isa(void);

/* Hugging Face's places, from the environment (hub.c). NULL: none. */
const char *cli_hub_cache(void);
const char *cli_hub_endpoint(void);
bool cli_hub_offline(void);
/* From `file` if one is named, else as huggingface_hub finds it; *token is NULL
 * when there is none. False, after an error was printed, for a bad `file`. */
bool cli_hub_token(const char *file, const char **token);

int cmd_import(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_mask(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_env(int argc, char **argv);

#endif
