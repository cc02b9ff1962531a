/* jinja_parse.c - tokens to the tree: statements, and what both halves of the
 * parser share. Refuses what transformers' environment has no loader for
 * (include, import, extends, block). Includes base only.
 * Source: jinja2 parser.py's grammar. */
#include <stdlib.h>

#include "text/jinja_i.h"

/* ---- tokens -----------------------------------------------------------------
 */

void jinja_advance(jinja_parser *p)
{
    p->now = p->ahead;
    p->ahead = jinja_next_token(&p->lexer);
    if (p->fault.status == LORI_OK)
        p->fault.line = p->now.line;
}

static bool same(const jinja_token *token, const char *z)
{
    return token->n == strlen(z) && memcmp(token->s, z, token->n) == 0;
}

bool jinja_is_op(const jinja_token *token, const char *op)
{
    return token->kind == JINJA_T_OPERATOR && same(token, op);
}

bool jinja_is_name(const jinja_token *token, const char *name)
{
    return token->kind == JINJA_T_NAME && same(token, name);
}

bool jinja_skip_op(jinja_parser *p, const char *op)
{
    bool there = jinja_is_op(&p->now, op);
    if (there)
        jinja_advance(p);
    return there;
}

bool jinja_skip_name(jinja_parser *p, const char *name)
{
    bool there = jinja_is_name(&p->now, name);
    if (there)
        jinja_advance(p);
    return there;
}

static const char *describe(const jinja_token *token)
{
    switch (token->kind) {
    case JINJA_T_END:
        return "end of template";
    case JINJA_T_PRINT_BEGIN:
        return "begin of print statement";
    case JINJA_T_PRINT_END:
        return "end of print statement";
    case JINJA_T_BLOCK_BEGIN:
        return "begin of statement block";
    case JINJA_T_BLOCK_END:
        return "end of statement block";
    case JINJA_T_TEXT:
        return "template data";
    default:
        return NULL;
    }
}

void jinja_unexpected(jinja_parser *p, const char *expected)
{
    const char *what = describe(&p->now);
    p->fault.line = p->now.line;
    if (what)
        jinja_fail(&p->fault, LORI_FORMAT, "expected %s, got %s", expected,
                   what);
    else
        jinja_fail(&p->fault, LORI_FORMAT, "expected %s, got '%.*s'", expected,
                   (int)(p->now.n < 60 ? p->now.n : 60), p->now.s);
}

void jinja_expect_op(jinja_parser *p, const char *op)
{
    if (jinja_skip_op(p, op))
        return;
    char expected[8];
    expected[0] = '\'';
    strcpy(expected + 1, op);
    strcat(expected, "'");
    jinja_unexpected(p, expected);
}

static void expect_name(jinja_parser *p, const char *name)
{
    if (!jinja_skip_name(p, name))
        jinja_unexpected(p, name);
}

static void expect_block_end(jinja_parser *p)
{
    if (p->now.kind == JINJA_T_BLOCK_END)
        jinja_advance(p);
    else
        jinja_unexpected(p, "end of statement block");
}

jinja_node *jinja_new_node(jinja_parser *p, jinja_node_kind kind)
{
    jinja_node *node = jinja_take(&p->template->arena, 1, sizeof *node);
    if (!node) {
        jinja_fail(&p->fault, LORI_NO_MEMORY, "out of memory for the template");
        node = &p->spare; /* p->template is thrown away */
    }
    *node = (jinja_node){.kind = (uint8_t)kind, .line = p->now.line};
    return node;
}

/* ---- statements
 * -------------------------------------------------------------- */

static jinja_node *statements(jinja_parser *p);

/* What differs below a statement that has a frame of its own in Jinja. */
typedef struct frame {
    bool soft;
    int loops;
} frame;

static frame enter_frame(jinja_parser *p, bool soft, int loops)
{
    frame old = {p->soft, p->loops};
    p->soft = soft;
    p->loops = loops;
    return old;
}

static void leave_frame(jinja_parser *p, frame old)
{
    p->soft = old.soft;
    p->loops = old.loops;
}

/* The statements up to "{% NAME"; NAME is the current token then. */
static jinja_node *body(jinja_parser *p, const char *opened, uint32_t line)
{
    jinja_skip_op(p, ":"); /* as in Python */
    expect_block_end(p);
    jinja_node *first = statements(p);
    if (p->now.kind == JINJA_T_END)
        jinja_fail(&p->fault, LORI_FORMAT,
                   "the '%s' of line %u is not closed before the end of the "
                   "template",
                   opened, line);
    return first;
}

/* ... up to "{% end %}", which is passed. */
static jinja_node *whole_body(jinja_parser *p, const char *opened,
                              const char *end, uint32_t line)
{
    jinja_node *first = body(p, opened, line);
    expect_name(p, end);
    return first;
}

static jinja_node *parse_for(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_FOR);
    jinja_advance(p);
    node->a = jinja_parse_target(p, "in", false);
    expect_name(p, "in");
    node->b = jinja_parse_tuple(p, false, "recursive");
    frame old = enter_frame(p, false, p->loops + 1);
    if (jinja_skip_name(p, "if"))
        node->c = jinja_parse_expression(p, true);
    node->flag = jinja_skip_name(p, "recursive");
    node->body = body(p, "for", node->line);
    p->loops = old.loops;
    if (jinja_skip_name(p, "else"))
        node->other = whole_body(p, "for", "endfor", node->line);
    else
        expect_name(p, "endfor");
    leave_frame(p, old);
    return node;
}

static jinja_node *parse_if(jinja_parser *p)
{
    jinja_node *top = jinja_new_node(p, JINJA_IF), *node = top;
    frame old = enter_frame(p, true, p->loops);
    jinja_advance(p);
    for (;;) {
        node->a = jinja_parse_tuple(p, false, NULL);
        node->body = body(p, "if", node->line);
        if (!jinja_skip_name(p, "elif"))
            break;
        node->other = jinja_new_node(p, JINJA_IF);
        node = node->other;
        node->flag = true;
        if (p->fault.status != LORI_OK)
            break;
    }
    if (jinja_skip_name(p, "else"))
        node->other = whole_body(p, "if", "endif", top->line);
    else
        expect_name(p, "endif");
    leave_frame(p, old);
    return top;
}

static jinja_node *parse_set(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_SET);
    jinja_advance(p);
    node->a = jinja_parse_target(p, NULL, true);
    if (jinja_skip_op(p, "=")) {
        node->b = jinja_parse_tuple(p, true, NULL);
        return node;
    }
    frame old = enter_frame(p, false, p->loops);
    node->kind = JINJA_SET_BLOCK;
    node->b = jinja_parse_filters(p, NULL, false);
    node->body = whole_body(p, "set", "endset", node->line);
    leave_frame(p, old);
    return node;
}

static jinja_node *parse_with(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_WITH), **end = &node->list;
    frame old = enter_frame(p, false, p->loops);
    jinja_advance(p);
    while (p->now.kind != JINJA_T_BLOCK_END && p->fault.status == LORI_OK) {
        if (node->list)
            jinja_expect_op(p, ",");
        jinja_node *target = jinja_parse_target(p, NULL, false);
        jinja_expect_op(p, "=");
        target->b = jinja_parse_expression(p, true);
        *end = target;
        end = &target->next;
    }
    node->body = whole_body(p, "with", "endwith", node->line);
    leave_frame(p, old);
    return node;
}

/* "(a, b=1)" of a macro or call block. */
static jinja_node *signature(jinja_parser *p)
{
    jinja_node *first = NULL, **end = &first;
    bool defaults = false;
    jinja_expect_op(p, "(");
    while (!jinja_is_op(&p->now, ")") && p->fault.status == LORI_OK) {
        if (first)
            jinja_expect_op(p, ",");
        jinja_node *name = jinja_parse_name_target(p);
        if (jinja_skip_op(p, "=")) {
            name->b = jinja_parse_expression(p, true);
            defaults = true;
        } else if (defaults) {
            jinja_fail(&p->fault, LORI_FORMAT,
                       "non-default argument follows default argument");
        }
        *end = name;
        end = &name->next;
    }
    jinja_expect_op(p, ")");
    return first;
}

/* The body of a macro or call block, and what it uses. */
static void define(jinja_parser *p, jinja_node *node, const char *opened,
                   const char *end)
{
    frame old = enter_frame(p, false, 0);
    unsigned uses = p->uses;
    p->uses = 0;
    node->body = whole_body(p, opened, end, node->line);
    node->op = (uint8_t)p->uses;
    p->uses |= uses;
    leave_frame(p, old);
}

static jinja_node *parse_macro(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_DEFINE);
    jinja_advance(p);
    node->value = jinja_parse_name_target(p)->value;
    frame old = enter_frame(p, false, 0);
    node->list = signature(p);
    leave_frame(p, old);
    define(p, node, "macro", "endmacro");
    return node;
}

static jinja_node *parse_call_block(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_CALL_BLOCK);
    jinja_node *caller = jinja_new_node(p, JINJA_DEFINE);
    jinja_advance(p);
    caller->value = JINJA_LITERAL("caller");
    if (jinja_is_op(&p->now, "("))
        caller->list = signature(p);
    node->a = jinja_parse_expression(p, true);
    if (node->a->kind != JINJA_CALL)
        jinja_fail(&p->fault, LORI_FORMAT, "expected call");
    define(p, caller, "call", "endcall");
    node->b = caller;
    return node;
}

static jinja_node *parse_filter_block(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_FILTER_BLOCK);
    frame old = enter_frame(p, false, p->loops);
    jinja_advance(p);
    node->a = jinja_parse_filters(p, NULL, true);
    node->body = whole_body(p, "filter", "endfilter", node->line);
    leave_frame(p, old);
    return node;
}

static jinja_node *parse_generation(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_GENERATION);
    jinja_advance(p);
    frame old = enter_frame(p, false, 0);
    node->body = whole_body(p, "generation", "endgeneration", node->line);
    leave_frame(p, old);
    return node;
}

static jinja_node *parse_print(jinja_parser *p)
{
    jinja_node *first = NULL, **end = &first;
    jinja_advance(p);
    while (p->now.kind != JINJA_T_BLOCK_END && p->fault.status == LORI_OK) {
        if (first)
            jinja_expect_op(p, ",");
        *end = jinja_new_node(p, JINJA_PRINT);
        (*end)->a = jinja_parse_expression(p, true);
        end = &(*end)->next;
    }
    return first ? first : jinja_new_node(p, JINJA_TEXT);
}

static jinja_node *leave_loop(jinja_parser *p, jinja_node_kind kind)
{
    jinja_node *node = jinja_new_node(p, kind);
    if (p->loops == 0)
        jinja_fail(&p->fault, LORI_FORMAT, "'%s' outside a for loop",
                   kind == JINJA_BREAK ? "break" : "continue");
    jinja_advance(p);
    return node;
}

static jinja_node *parse_break(jinja_parser *p)
{
    return leave_loop(p, JINJA_BREAK);
}

static jinja_node *parse_continue(jinja_parser *p)
{
    return leave_loop(p, JINJA_CONTINUE);
}

static jinja_node *statement(jinja_parser *p)
{
    static const struct {
        const char *name;
        jinja_node *(*parse)(jinja_parser *p);
    } known[] = {{"if", parse_if},
                 {"for", parse_for},
                 {"set", parse_set},
                 {"macro", parse_macro},
                 {"generation", parse_generation},
                 {"break", parse_break},
                 {"continue", parse_continue},
                 {"call", parse_call_block},
                 {"filter", parse_filter_block},
                 {"with", parse_with},
                 {"print", parse_print}};
    static const char *const files[] = {"include", "import", "from",
                                        "extends", "block",  "autoescape"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (jinja_is_name(&p->now, known[i].name))
            return known[i].parse(p);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (jinja_is_name(&p->now, files[i]))
            jinja_fail(&p->fault, LORI_UNSUPPORTED,
                       "'%s' is not supported in chat templates", files[i]);
    if (p->now.kind == JINJA_T_NAME)
        jinja_fail(&p->fault, LORI_FORMAT, "unknown or misplaced tag '%.*s'",
                   (int)(p->now.n < 60 ? p->now.n : 60), p->now.s);
    else
        jinja_unexpected(p, "the name of a tag");
    return jinja_new_node(p, JINJA_TEXT);
}

/* Names that end or divide a body rather than begin a statement. */
static bool ends_body(const jinja_token *token)
{
    return token->kind == JINJA_T_NAME &&
           (same(token, "elif") || same(token, "else") ||
            (token->n > 3 && memcmp(token->s, "end", 3) == 0));
}

static jinja_node *output(jinja_parser *p)
{
    jinja_advance(p);
    jinja_node *node = jinja_new_node(p, JINJA_PRINT);
    node->a = jinja_parse_tuple(p, true, NULL);
    if (p->now.kind == JINJA_T_PRINT_END)
        jinja_advance(p);
    else
        jinja_unexpected(p, "end of print statement");
    return node;
}

/* Outside an if, unknown filters and tests are refused even where they would
 * not be run. */
static void check_names(jinja_parser *p)
{
    const jinja_node *node = p->unknown;
    if (!node || p->fault.status != LORI_OK)
        return;
    p->fault.line = node->line;
    jinja_fail(&p->fault, LORI_FORMAT, "No %s named '%.*s'",
               node->kind == JINJA_FILTER ? "filter" : "test",
               (int)node->value.n, node->value.as.s);
}

/* Up to the template's end, or to a tag that ends a body. */
static jinja_node *statements(jinja_parser *p)
{
    jinja_node *first = NULL, **end = &first;
    if (++p->nest > JINJA_MAX_NEST)
        jinja_fail(&p->fault, LORI_UNSUPPORTED, "nested too deeply");
    while (p->fault.status == LORI_OK && p->now.kind != JINJA_T_END) {
        jinja_node *node;
        if (p->now.kind == JINJA_T_TEXT) {
            node = jinja_new_node(p, JINJA_TEXT);
            node->value = jinja_str(p->now.s, p->now.n);
            jinja_advance(p);
        } else if (p->now.kind == JINJA_T_PRINT_BEGIN) {
            node = output(p);
        } else {
            jinja_advance(p);
            if (ends_body(&p->now) && p->nest > 1)
                break;
            node = statement(p);
            expect_block_end(p);
        }
        check_names(p);
        *end = node;
        while (*end)
            end = &(*end)->next;
    }
    p->nest--;
    return first;
}

/* ---- the whole
 * ----------------------------------------------------------------- */

/* The source with LF line ends and without one final line end. */
static lori_status plain_lines(jinja_template *t, const char *s, size_t n,
                               lori_error *err)
{
    t->source = base_alloc(n + 1, 1);
    if (!t->source)
        return base_no_memory(err, n);
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n')
            continue;
        t->source[t->n_source++] = s[i] == '\r' ? '\n' : s[i];
    }
    if (t->n_source && t->source[t->n_source - 1] == '\n')
        t->n_source--;
    return LORI_OK;
}

static lori_status parse(jinja_template *t, lori_error *err)
{
    jinja_parser p = {.template = t,
                      .lexer = {.s = t->source,
                                .n = t->n_source,
                                .line = 1,
                                .line_starting = true},
                      .fault = {.err = err, .name = t->name, .line = 1}};
    p.lexer.arena = &t->arena;
    p.lexer.fault = &p.fault;
    jinja_advance(&p);
    jinja_advance(&p);
    t->body = statements(&p);
    if (t->arena.failed)
        jinja_fail(&p.fault, LORI_NO_MEMORY, "out of memory for the template");
    return p.fault.status;
}

lori_status jinja_compile(const char *source, size_t n, const char *name,
                          jinja_template **out, lori_error *err)
{
    *out = NULL;
    size_t valid = base_utf8_valid(source, n);
    if (n > JINJA_MAX_SOURCE)
        return base_fail(err, LORI_UNSUPPORTED, "%s: a template over 16 MiB",
                         name);
    if (valid != n)
        return base_fail(err, LORI_FORMAT, "%s: not UTF-8 at byte %zu", name,
                         valid);
    jinja_template *t = base_alloc(1, sizeof *t);
    if (!t)
        return base_no_memory(err, sizeof *t);
    t->arena.max = JINJA_MAX_MEMORY;
    t->name = base_strdup(name);
    lori_status st = t->name ? plain_lines(t, source, n, err)
                             : base_no_memory(err, strlen(name));
    if (st == LORI_OK)
        st = parse(t, err);
    if (st == LORI_OK)
        *out = t;
    else
        jinja_template_free(t);
    return st;
}

void jinja_template_free(jinja_template *t)
{
    if (!t)
        return;
    jinja_arena_free(&t->arena);
    free(t->source);
    free(t->name);
    free(t);
}
