/* jinja_i.h - the interpreter of chat templates: Jinja as transformers sets it
 * up (trim_blocks, lstrip_blocks, loop controls, generation blocks, an
 * immutable sandbox, no autoescape). Private to the room.
 *
 * A template's text goes through the lexer (jinja_lex.c) and the parser
 * (jinja_parse.c, jinja_parse_expr.c) into a tree that never changes again;
 * jinja_exec.c runs its statements, jinja_eval.c its expressions. Values and
 * scopes of a run live in the run's arena and go with it, so nothing is
 * counted or freed one by one. A run is bounded in steps, depth, memory and
 * output: templates are untrusted.
 * Source: jinja2 3.1, transformers 5 chat_template_utils.py; spec/text.md 4. */
#ifndef TEXT_JINJA_I_H
#define TEXT_JINJA_I_H

#include <jansson.h>

#include "base/base.h"
#include "text/unicode_i.h"

#define JINJA_MAX_SOURCE ((size_t)1 << 24) /* bytes of a template */
#define JINJA_MAX_NEST   200  /* brackets, operators and blocks, parsing */
#define JINJA_MAX_DEPTH  1000 /* nested evaluations, macros and data */
#define JINJA_MAX_MEMORY ((size_t)1 << 28)
#define JINJA_MAX_OUTPUT ((size_t)1 << 26)
#define JINJA_MAX_RANGE  100000 /* jinja2's own bound */
#define JINJA_MAX_PARAMS 5      /* of a filter, test, method or function */
/* Evaluations, or 64 bytes handled each; a fuzzer takes fewer. */
#ifndef JINJA_MAX_STEPS
#define JINJA_MAX_STEPS 10000000
#endif

/* ---- memory and errors ------------------------------------------------ */

/* Blocks that are freed together. `failed` is sticky; so is what follows. */
typedef struct jinja_block jinja_block;
typedef struct jinja_arena {
    jinja_block *block;
    size_t total, max; /* bytes taken from the system, and their bound */
    bool failed;
} jinja_arena;
/* Zeroed, aligned to 16; NULL once failed. */
void *jinja_take(jinja_arena *arena, size_t n, size_t size);
/* Room for n bytes right behind s[0..have) when s ends the arena, else a copy
 * of s with that room behind it. */
char *jinja_extend(jinja_arena *arena, const char *s, size_t have, size_t n);
void jinja_arena_free(jinja_arena *arena);

/* The first failure, with the template's name and line. */
typedef struct jinja_fault {
    lori_status status;
    lori_error *err;
    const char *name;
    uint32_t line; /* being parsed or run */
} jinja_fault;
void jinja_fail(jinja_fault *fault, lori_status status, const char *fmt, ...)
    BASE_PRINTF(3, 4);

/* ---- values ------------------------------------------------------------- */

typedef enum jinja_kind {
    JINJA_MISSING, /* an argument that was not given */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STR,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_VIEW, /* of a dict: keys, values or items */
    JINJA_RANGE,
    JINJA_ITERATOR, /* a filter's generator: runs once, has no length */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_FUNCTION, /* a global */
    JINJA_METHOD,   /* bound to its object */
    JINJA_CYCLER,
    JINJA_JOINER
} jinja_kind;

typedef struct jinja_value {
    uint8_t kind;
    bool safe;  /* a string that `safe` or `escape` made (Markup) */
    uint32_t n; /* bytes of a string */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* valid UTF-8, not NUL-terminated */
        const struct jinja_absent *absent;
        const struct jinja_list *list;
        struct jinja_dict *dict; /* also a namespace's */
        const struct jinja_view *view;
        const struct jinja_range *range;
        struct jinja_iterator *iterator;
        struct jinja_loop *loop;
        const struct jinja_macro *macro;
        const struct jinja_builtin *function;
        const struct jinja_method *method;
        struct jinja_cycler *cycler;
        struct jinja_joiner *joiner;
    } as;
} jinja_value;

/* What an undefined value was looked for in: its error message. */
typedef struct jinja_absent {
    const char *hint;  /* the whole message, or NULL */
    bool unsafe;       /* the sandbox forbids it */
    jinja_value owner; /* MISSING: a variable */
    jinja_value name;
} jinja_absent;
typedef struct jinja_list { /* also a tuple */
    jinja_value *item;
    size_t n;
} jinja_list;
typedef struct jinja_entry {
    jinja_value key, value;
} jinja_entry;
typedef struct jinja_dict { /* in order of insertion */
    jinja_entry *entry;
    size_t n, cap;
} jinja_dict;
typedef struct jinja_view {
    const jinja_dict *dict;
    enum jinja_what { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS } what;
} jinja_view;
typedef struct jinja_range {
    int64_t start, stop, step;
    size_t n;
} jinja_range;

typedef struct jinja_run jinja_run;
typedef struct jinja_node jinja_node;

/* Arguments of a call. */
typedef struct jinja_keyword {
    jinja_value name, value;
} jinja_keyword;
typedef struct jinja_call {
    jinja_value *arg;
    size_t n;
    jinja_keyword *keyword;
    size_t n_keywords;
} jinja_call;

/* A filter, test, method or global function. `params` names its parameters
 * ("old,new,count"), of which the first `required` must be given; they arrive
 * in arg[], absent ones as MISSING. With params NULL it reads `call`. */
typedef jinja_value jinja_function(jinja_run *run, jinja_value self,
                                   const jinja_value *arg,
                                   const jinja_call *call);
typedef struct jinja_builtin {
    const char *name;
    jinja_function *run;
    const char *params;
    int required;
    bool lazy; /* a filter whose result is an iterator: runs when first used */
} jinja_builtin;

typedef struct jinja_method {
    jinja_value self;
    const jinja_builtin *builtin;
} jinja_method;

/* Items are made when the first is asked for. */
typedef struct jinja_iterator {
    const char *type;            /* "generator" */
    const jinja_builtin *filter; /* NULL once it ran */
    jinja_value self;
    jinja_call call;
    jinja_list items;
    size_t at;
} jinja_iterator;

typedef struct jinja_binding {
    jinja_value name, value;
    struct jinja_binding *next;
} jinja_binding;
typedef struct jinja_scope {
    struct jinja_scope *up;
    jinja_binding *first;
} jinja_scope;

/* A macro, or a call block's caller. */
typedef struct jinja_macro {
    const jinja_node *node;
    jinja_scope *scope; /* where it was defined */
    jinja_value name;
} jinja_macro;

typedef struct jinja_loop {
    const jinja_node *node; /* the for statement */
    jinja_scope *scope;     /* around it */
    jinja_list source;      /* all items */
    jinja_value *item;      /* those that pass the loop's test */
    size_t n_source, n, at; /* source items tried, items, current */
    jinja_value changed;    /* what loop.changed() saw last, MISSING at first */
    int depth0;
} jinja_loop;
typedef struct jinja_cycler {
    jinja_list items;
    size_t at;
} jinja_cycler;
typedef struct jinja_joiner {
    jinja_value separator;
    bool used;
} jinja_joiner;

/* ---- the tree ----------------------------------------------------------- */

typedef enum jinja_node_kind {
    /* statements */
    JINJA_TEXT,         /* value */
    JINJA_PRINT,        /* a */
    JINJA_FOR,          /* a target, b iterable, c test; body; other: else */
    JINJA_IF,           /* a test; body; other: else */
    JINJA_SET,          /* a target, b expression */
    JINJA_SET_BLOCK,    /* a target, b filters or NULL; body */
    JINJA_WITH,         /* list: targets, each with its expression in b; body */
    JINJA_DEFINE,       /* value: name; list: parameters, default in b; body */
    JINJA_CALL_BLOCK,   /* a call, b the caller as JINJA_DEFINE */
    JINJA_FILTER_BLOCK, /* a filters; body */
    JINJA_GENERATION,   /* body */
    JINJA_BREAK,
    JINJA_CONTINUE,
    /* expressions */
    JINJA_CONST,      /* value */
    JINJA_NAME,       /* value */
    JINJA_NS_NAME,    /* target only: value.attribute, attribute in a->value */
    JINJA_MAKE_TUPLE, /* list */
    JINJA_MAKE_LIST,  /* list */
    JINJA_MAKE_DICT,  /* list: keys, each with its value in b */
    JINJA_ATTRIBUTE,  /* a, value */
    JINJA_ITEM,       /* a, b */
    JINJA_SLICE,    /* a; list of 3: start, stop, step, CONST none if absent */
    JINJA_CALL,     /* a; list: arguments */
    JINJA_ARGUMENT, /* a; op: positional, keyword (value), *, ** */
    JINJA_FILTER,   /* a or NULL in a block; value: name; list: arguments */
    JINJA_TEST,     /* as FILTER */
    JINJA_NOT,      /* a */
    JINJA_NEGATE,   /* a */
    JINJA_PLUS,     /* a */
    JINJA_BINARY,   /* a op b */
    JINJA_CONCAT,   /* list */
    JINJA_COMPARE,  /* a; list: operands, op in each, expression in a */
    JINJA_AND,      /* a, b */
    JINJA_OR,       /* a, b */
    JINJA_CHOOSE    /* a if b else c, c may be NULL */
} jinja_node_kind;

typedef enum jinja_op {
    JINJA_ADD,
    JINJA_SUB,
    JINJA_MUL,
    JINJA_DIV,
    JINJA_FLOORDIV,
    JINJA_MOD,
    JINJA_POW,
    JINJA_EQ,
    JINJA_NE,
    JINJA_LT,
    JINJA_LE,
    JINJA_GT,
    JINJA_GE,
    JINJA_IN,
    JINJA_NOT_IN,
    JINJA_POSITIONAL,
    JINJA_KEYWORD,
    JINJA_STAR,
    JINJA_STAR_STAR
} jinja_op;

/* What a macro's body mentions: it then takes such arguments. */
#define JINJA_USES_CALLER  1
#define JINJA_USES_VARARGS 2
#define JINJA_USES_KWARGS  4

struct jinja_node {
    uint8_t kind; /* jinja_node_kind */
    uint8_t op;   /* jinja_op; of DEFINE: JINJA_USES_* */
    bool flag;    /* FOR: recursive; IF: an elif of the one before */
    uint32_t line;
    jinja_value value;
    jinja_node *a, *b, *c;
    jinja_node *list, *body, *other; /* first of a chain */
    jinja_node *next;                /* in such a chain */
    const jinja_builtin *builtin;    /* FILTER, TEST; NULL: fails when run */
};

/* A compiled template; read-only. */
typedef struct jinja_template {
    char *name;   /* for errors */
    char *source; /* with LF line ends; the tree's names point into it */
    size_t n_source;
    jinja_arena arena;
    jinja_node *body;
} jinja_template;

/* `name` labels errors: "name:line: ...". */
lori_status jinja_compile(const char *source, size_t n, const char *name,
                          jinja_template **out, lori_error *err);
void jinja_template_free(jinja_template *template);

/* Renders with the members of `context` as variables; appends to `out` only
 * when all went well. `now_s`: seconds since 1970 for strftime_now. */
lori_status jinja_render(const jinja_template *template, json_t *context,
                         int64_t now_s, base_str *out, lori_error *err);

/* ---- tokens (jinja_lex.c) ------------------------------------------------ */

typedef enum jinja_token_kind {
    JINJA_T_END,
    JINJA_T_TEXT,
    JINJA_T_PRINT_BEGIN,
    JINJA_T_PRINT_END,
    JINJA_T_BLOCK_BEGIN,
    JINJA_T_BLOCK_END,
    JINJA_T_NAME,
    JINJA_T_STRING,
    JINJA_T_NUMBER,
    JINJA_T_OPERATOR
} jinja_token_kind;
typedef struct jinja_token {
    jinja_token_kind kind;
    uint32_t line;
    const char *s; /* as written */
    size_t n;
    jinja_value value; /* of a string or number */
} jinja_token;
typedef struct jinja_lexer {
    const char *s; /* source, LF line ends, no final one */
    size_t n, at;
    uint32_t line;
    enum { JINJA_ROOT, JINJA_IN_BLOCK, JINJA_IN_PRINT } state;
    bool inside; /* the tag's first mark is behind us */
    bool line_starting, raw;
    char closing[JINJA_MAX_NEST]; /* brackets that are open */
    int n_open;
    jinja_arena *arena; /* decoded strings */
    jinja_fault *fault;
} jinja_lexer;
/* The next token; END after a failure, too. */
jinja_token jinja_next_token(jinja_lexer *lexer);

/* ---- parser -------------------------------------------------------------- */

typedef struct jinja_parser {
    jinja_lexer lexer;
    jinja_token now, ahead;
    jinja_template *template;
    jinja_fault fault;
    int nest;
    int loops;     /* open for statements: break and continue may stand here */
    bool soft;     /* directly under an if: unknown filters fail when run */
    unsigned uses; /* JINJA_USES_* seen since the macro began */
    jinja_node *unknown; /* FILTER or TEST whose name is not known */
    jinja_node spare;    /* stands for one that found no memory */
} jinja_parser;
void jinja_advance(jinja_parser *p);
bool jinja_is_op(const jinja_token *token, const char *op);
bool jinja_is_name(const jinja_token *token, const char *name);
bool jinja_skip_op(jinja_parser *p, const char *op);
bool jinja_skip_name(jinja_parser *p, const char *name);
/* Fails unless the token is there. */
void jinja_expect_op(jinja_parser *p, const char *op);
/* Of the current token: "end of print statement", "'x'". */
void jinja_unexpected(jinja_parser *p, const char *expected);
/* Both always give a node, so that callers need no check: after a failure a
 * spare one that nobody runs. */
jinja_node *jinja_new_node(jinja_parser *p, jinja_node_kind kind);
jinja_node *jinja_parse_expression(jinja_parser *p, bool conditional);
/* Expressions with commas between them are a tuple. `end`: a name that may
 * follow (for ... in), or NULL. */
jinja_node *jinja_parse_tuple(jinja_parser *p, bool conditional,
                              const char *end);
jinja_node *jinja_parse_target(jinja_parser *p, const char *end,
                               bool namespaces);
jinja_node *jinja_parse_name_target(jinja_parser *p);
/* "| filter | filter" after node, which may be NULL (set and filter blocks);
 * `inline_first`: the first filter stands without its "|". */
jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *node,
                                bool inline_first);

/* ---- a run --------------------------------------------------------------- */

struct jinja_run {
    jinja_arena arena;
    jinja_fault fault;
    jinja_scope *scope;
    const jinja_dict *context; /* variables given from outside */
    base_str *out;
    size_t out_total; /* bytes printed into any buffer */
    int64_t steps;    /* left */
    int depth;
    int64_t now_s;
};
static inline bool jinja_failed(const jinja_run *run)
{
    return run->fault.status != LORI_OK;
}
/* LORI_INVALID with the current line; returns an undefined value. */
jinja_value jinja_error(jinja_run *run, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Counts work of n bytes or items; false when the run has failed. */
bool jinja_step(jinja_run *run, size_t n);
/* Enters one more level of recursion in C; false (failed) when too deep. */
bool jinja_enter(jinja_run *run);
static inline void jinja_leave(jinja_run *run)
{
    run->depth--;
}

/* Statements. */
jinja_value jinja_call_macro(jinja_run *run, const jinja_macro *macro,
                             const jinja_call *call);
jinja_value jinja_call_loop(jinja_run *run, const jinja_loop *loop,
                            jinja_value items);
/* Whether the loop has an item k; applies the loop's test as far as needed. */
bool jinja_loop_has(jinja_run *run, jinja_loop *loop, size_t k);

/* Expressions. */
jinja_value jinja_eval(jinja_run *run, const jinja_node *node);
/* Applies a chain of filters to the value that stands for its start. */
jinja_value jinja_eval_filters(jinja_run *run, const jinja_node *node,
                               jinja_value start);
jinja_value jinja_eval_call(jinja_run *run, const jinja_node *node,
                            const jinja_value *caller);
jinja_value jinja_call_value(jinja_run *run, jinja_value callee,
                             const jinja_call *call);
jinja_value jinja_call_builtin(jinja_run *run, const jinja_builtin *builtin,
                               jinja_value self, const jinja_call *call);
jinja_value jinja_binary(jinja_run *run, jinja_op op, jinja_value a,
                         jinja_value b);
bool jinja_compare(jinja_run *run, jinja_op op, jinja_value a, jinja_value b);
jinja_value jinja_negate(jinja_run *run, jinja_value v);

/* a.name, and a[key]. */
jinja_value jinja_get_attribute(jinja_run *run, jinja_value a,
                                jinja_value name);
jinja_value jinja_get_item(jinja_run *run, jinja_value a, jinja_value key);
/* a[start:stop:step]; NONE where a bound is absent. */
jinja_value jinja_slice(jinja_run *run, jinja_value a, const jinja_value *part);

const jinja_builtin *jinja_find_filter(const char *name, size_t n);
const jinja_builtin *jinja_find_test(const char *name, size_t n);
const jinja_builtin *jinja_find_global(const char *name, size_t n);
/* Fails for a name that no attribute of a namespace may have. */
void jinja_check_attribute(jinja_run *run, jinja_value name);
const jinja_builtin *jinja_find_in(const jinja_builtin *table, size_t count,
                                   const char *name, size_t n);
extern const jinja_builtin jinja_filters[], jinja_list_filters[];
extern const size_t jinja_filters_count, jinja_list_filters_count;
/* The method of a value's type, NULL when it has none of that name; one whose
 * `run` is NULL exists and is forbidden by the sandbox. */
const jinja_builtin *jinja_find_method(jinja_value v, const char *name,
                                       size_t n);

/* ---- making and reading values (jinja_value.c) --------------------------- */

static inline jinja_value jinja_none(void)
{
    return (jinja_value){.kind = JINJA_NONE};
}
static inline jinja_value jinja_bool(bool b)
{
    return (jinja_value){.kind = JINJA_BOOL, .as.b = b};
}
static inline jinja_value jinja_int(int64_t i)
{
    return (jinja_value){.kind = JINJA_INT, .as.i = i};
}
static inline jinja_value jinja_float(double f)
{
    return (jinja_value){.kind = JINJA_FLOAT, .as.f = f};
}
static inline jinja_value jinja_str(const char *s, size_t n)
{
    return (jinja_value){.kind = JINJA_STR, .n = (uint32_t)n, .as.s = s};
}
#define JINJA_LITERAL(z) jinja_str(z, sizeof(z) - 1)
/* A string of the arena with the buffer's bytes; frees the buffer. */
jinja_value jinja_str_take(jinja_run *run, base_str *text);
jinja_value jinja_list_new(jinja_run *run, jinja_kind kind, size_t n,
                           jinja_value **items);
jinja_value jinja_tuple_of(jinja_run *run, jinja_value a, jinja_value b);
jinja_value jinja_dict_new(jinja_run *run, size_t cap);
/* Replaces the value of an equal key. Fails for keys that have no hash. */
void jinja_dict_set(jinja_run *run, jinja_dict *dict, jinja_value key,
                    jinja_value value);
/* NULL when absent. */
const jinja_value *jinja_dict_find(jinja_run *run, const jinja_dict *dict,
                                   jinja_value key);
jinja_value jinja_range_item(const jinja_range *range, size_t i);
jinja_value jinja_from_json(jinja_run *run, json_t *json);

jinja_value jinja_undefined_name(jinja_run *run, jinja_value name);
jinja_value jinja_undefined_in(jinja_run *run, jinja_value owner,
                               jinja_value name);
jinja_value jinja_undefined_hint(jinja_run *run, const char *hint);
/* An attribute that the sandbox forbids. */
jinja_value jinja_undefined_unsafe(jinja_run *run, jinja_value owner,
                                   jinja_value name);
/* Fails with the message of an undefined value. */
jinja_value jinja_use_undefined(jinja_run *run, jinja_value v);

bool jinja_true(jinja_value v);
bool jinja_same_text(jinja_value a, const char *s, size_t n);
bool jinja_is_text(jinja_value v, const char *z);
bool jinja_equal(jinja_run *run, jinja_value a, jinja_value b);
/* a < b: -1, a == b: 0, a > b: 1. Fails for types without an order. */
int jinja_order(jinja_run *run, jinja_value a, jinja_value b);
bool jinja_contains(jinja_run *run, jinja_value all, jinja_value one);
bool jinja_hashable(jinja_value v);
bool jinja_is_callable(jinja_value v);
bool jinja_is_number(jinja_value v);          /* bool, int, float */
bool jinja_as_int(jinja_value v, int64_t *i); /* bool and int */
double jinja_as_float(jinja_value v);
/* False when it has no len(). Of a string: code points. */
bool jinja_length(jinja_value v, size_t *n);
bool jinja_iterable(jinja_value v);
/* All items in order; an iterator is used up. Fails when not iterable. */
jinja_list jinja_items(jinja_run *run, jinja_value v);
/* One item of the above without using up the rest; false at its end. */
bool jinja_iterator_next(jinja_run *run, jinja_iterator *it, jinja_value *out);
const char *jinja_type(jinja_value v); /* "str", as Python names it */

/* ---- text of values (jinja_text.c) ----------------------------------------
 */

/* Appends str(v) and repr(v) of Python. */
void jinja_put_str(jinja_run *run, jinja_value v, base_str *out);
void jinja_put_repr(jinja_run *run, jinja_value v, base_str *out);
/* str(v) as a plain string; soft: a string stays as it is (Markup). */
jinja_value jinja_to_str(jinja_run *run, jinja_value v);
jinja_value jinja_soft_str(jinja_run *run, jinja_value v);
/* markupsafe.escape. */
jinja_value jinja_escape(jinja_run *run, jinja_value v);
typedef struct jinja_json_style {
    bool ascii, sort, indented;
    jinja_value indent;    /* the text of one level */
    jinja_value item, key; /* separators */
} jinja_json_style;
void jinja_put_json(jinja_run *run, jinja_value v,
                    const jinja_json_style *style, base_str *out);
/* Python's  format % values. */
jinja_value jinja_percent(jinja_run *run, jinja_value format,
                          jinja_value values);
/* format.format(...). */
jinja_value jinja_brace_format(jinja_run *run, jinja_value format,
                               const jinja_call *call);
jinja_value jinja_strftime(jinja_run *run, jinja_value format);

/* ---- strings (jinja_str.c, python_tables.c) -------------------------------
 */

size_t jinja_chars(jinja_value s);
/* Bytes of the first k code points. */
size_t jinja_char_offset(jinja_value s, size_t k);
/* Part of a string, with its safe bit. */
jinja_value jinja_part(jinja_value s, size_t from, size_t to);
bool text_is_python_space(uint32_t c); /* str.isspace */
/* `chars` kind NONE: white space. */
jinja_value jinja_strip(jinja_value s, jinja_value chars, bool left,
                        bool right);
/* Byte offset of the first (last) `what` at or after `from`, or SIZE_MAX. */
size_t jinja_find(jinja_value s, jinja_value what, size_t from);
size_t jinja_find_last(jinja_value s, jinja_value what);
jinja_value jinja_replace(jinja_run *run, jinja_value s, jinja_value old,
                          jinja_value with, int64_t count);
/* separator NONE: runs of white space; most < 0: all. */
jinja_value jinja_split(jinja_run *run, jinja_value s, jinja_value separator,
                        int64_t most, bool from_right);
jinja_value jinja_split_lines(jinja_run *run, jinja_value s, bool keep_ends);
typedef enum jinja_case {
    JINJA_UPPER,
    JINJA_LOWER,
    JINJA_CAPITALIZE,
    JINJA_TITLE, /* str.title */
    JINJA_WORDS  /* the title filter */
} jinja_case;
jinja_value jinja_change_case(jinja_run *run, jinja_value s, jinja_case how);

typedef struct text_case_range {
    uint32_t first, last;
    int32_t upper, lower; /* to be added */
} text_case_range;
typedef struct text_case_special {
    uint32_t c;
    const char *upper, *lower, *title; /* UTF-8 */
} text_case_special;
extern const text_case_range text_case[];
extern const size_t text_case_count;
extern const text_case_special text_case_specials[];
extern const size_t text_case_specials_count;
extern const text_range text_cased[], text_case_ignorable[], text_digit[],
    text_alphabetic[], text_unprintable[];
extern const size_t text_cased_count, text_case_ignorable_count,
    text_digit_count, text_alphabetic_count, text_unprintable_count;

#endif
