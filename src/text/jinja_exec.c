/* jinja_exec.c - runs statements. Scopes follow Jinja: `if` has none; a pass
 * of a loop, a macro call, with, block set, filter and generation blocks have
 * one that is gone afterwards; a macro sees the scopes around its definition.
 * Includes base, jansson. Source: jinja2 compiler.py, idtracking.py. */
#include <stdlib.h>

#include "text/jinja_i.h"

/* What a statement leaves behind: go on, or leave the loop's pass. */
typedef enum flow { NEXT, BREAK, CONTINUE } flow;

static flow run_list(jinja_run *run, const jinja_node *list);

/* ---- output
 * ------------------------------------------------------------------------ */

static void emit(jinja_run *run, jinja_value v)
{
    size_t before = run->out->len;
    if (jinja_failed(run))
        return;
    jinja_put_str(run, v, run->out);
    run->out_total += run->out->len - before;
    if (run->out->failed)
        run->arena.failed = true;
    if (run->out_total > JINJA_MAX_OUTPUT)
        jinja_fail(&run->fault, LORI_UNSUPPORTED,
                   "the template prints more than %zu MiB",
                   JINJA_MAX_OUTPUT >> 20);
}

/* ---- scopes
 * ------------------------------------------------------------------------ */

/* Leaves *scope as the current one; put run->scope back afterwards. */
static void push(jinja_run *run, jinja_scope *up)
{
    jinja_scope *scope = jinja_take(&run->arena, 1, sizeof *scope);
    if (!scope) {
        jinja_error(run, "out of memory");
        return;
    }
    scope->up = up;
    run->scope = scope;
}

static void set_name(jinja_run *run, jinja_value name, jinja_value value)
{
    if (jinja_failed(run))
        return;
    for (jinja_binding *b = run->scope->first; b; b = b->next) {
        if (jinja_same_text(b->name, name.as.s, name.n)) {
            b->value = value;
            return;
        }
    }
    jinja_binding *b = jinja_take(&run->arena, 1, sizeof *b);
    if (!jinja_step(run, 0) || !b)
        return;
    *b = (jinja_binding){name, value, run->scope->first};
    run->scope->first = b;
}

static void set_attribute(jinja_run *run, const jinja_node *target,
                          jinja_value value)
{
    jinja_node name = {
        .kind = JINJA_NAME, .line = target->line, .value = target->value};
    jinja_value owner = jinja_eval(run, &name);
    jinja_value attribute = target->a->value;
    if (owner.kind != JINJA_NAMESPACE) {
        jinja_error(run, "cannot assign attribute on non-namespace object");
        return;
    }
    jinja_check_attribute(run, attribute);
    if (!jinja_failed(run))
        jinja_dict_set(run, owner.as.dict, attribute, value);
}

static void assign(jinja_run *run, const jinja_node *target, jinja_value value)
{
    if (jinja_failed(run))
        return;
    if (target->kind == JINJA_NAME) {
        set_name(run, target->value, value);
    } else if (target->kind == JINJA_NS_NAME) {
        set_attribute(run, target, value);
    } else {
        jinja_list items = jinja_items(run, value);
        size_t want = 0;
        for (const jinja_node *t = target->list; t; t = t->next)
            want++;
        if (!jinja_failed(run) && items.n != want)
            jinja_error(run, "%s values to unpack (expected %zu, got %zu)",
                        items.n < want ? "not enough" : "too many", want,
                        items.n);
        for (const jinja_node *t = target->list; t && !jinja_failed(run);
             t = t->next)
            assign(run, t, *items.item++);
    }
}

/* Runs a body in a scope of its own and gives what it prints. */
static jinja_value capture(jinja_run *run, const jinja_node *body,
                           jinja_scope *up, flow *left)
{
    base_str text = {0}, *out = run->out;
    jinja_scope *scope = run->scope;
    run->out = &text;
    push(run, up);
    *left = run_list(run, body);
    run->scope = scope;
    run->out = out;
    return jinja_str_take(run, &text);
}

/* ---- macros
 * ---------------------------------------------------------------------------
 */

static bool take_keyword(jinja_run *run, const jinja_call *call, bool *used,
                         jinja_value name, jinja_value *out)
{
    for (size_t i = 0; i < call->n_keywords; i++) {
        if (!used[i] &&
            jinja_same_text(call->keyword[i].name, name.as.s, name.n)) {
            *out = call->keyword[i].value;
            used[i] = true;
            return jinja_step(run, 0);
        }
    }
    return false;
}

/* Binds parameters in order, so that a default may use those before it. */
static size_t bind_parameters(jinja_run *run, const jinja_node *node,
                              const jinja_call *call, bool *used)
{
    size_t i = 0;
    for (const jinja_node *p = node->list; p && !jinja_failed(run);
         p = p->next, i++) {
        jinja_value v = {0};
        if (i < call->n)
            v = call->arg[i];
        else if (!take_keyword(run, call, used, p->value, &v))
            v = p->b ? jinja_eval(run, p->b)
                     : jinja_undefined_name(run, p->value);
        set_name(run, p->value, v);
    }
    return i;
}

/* varargs, kwargs, caller: for bodies that mention them. */
static void bind_rest(jinja_run *run, const jinja_macro *macro,
                      const jinja_call *call, bool *used, size_t taken)
{
    jinja_value caller = {0}, *item, rest;
    unsigned uses = macro->node->op;
    size_t extra = call->n > taken ? call->n - taken : 0;
    if (uses & JINJA_USES_CALLER) {
        if (!take_keyword(run, call, used, JINJA_LITERAL("caller"), &caller))
            caller = jinja_undefined_hint(run, "No caller defined");
        set_name(run, JINJA_LITERAL("caller"), caller);
    }
    rest = jinja_dict_new(run, call->n_keywords);
    for (size_t i = 0; i < call->n_keywords && !jinja_failed(run); i++) {
        if (used[i])
            continue;
        jinja_value name = call->keyword[i].name;
        if (!(uses & JINJA_USES_KWARGS))
            jinja_error(run, "macro '%.*s' takes no keyword argument '%.*s'",
                        (int)macro->name.n, macro->name.as.s, (int)name.n,
                        name.as.s);
        else
            jinja_dict_set(run, rest.as.dict, name, call->keyword[i].value);
    }
    if (uses & JINJA_USES_KWARGS)
        set_name(run, JINJA_LITERAL("kwargs"), rest);
    if (extra && !(uses & JINJA_USES_VARARGS))
        jinja_error(run, "macro '%.*s' takes not more than %zu argument(s)",
                    (int)macro->name.n, macro->name.as.s, taken);
    rest = jinja_list_new(run, JINJA_TUPLE, extra, &item);
    if (jinja_failed(run))
        return;
    if (extra)
        memcpy(item, call->arg + taken, extra * sizeof *item);
    if (uses & JINJA_USES_VARARGS)
        set_name(run, JINJA_LITERAL("varargs"), rest);
}

jinja_value jinja_call_macro(jinja_run *run, const jinja_macro *macro,
                             const jinja_call *call)
{
    jinja_scope *scope = run->scope;
    jinja_value v = {.kind = JINJA_UNDEFINED};
    flow left;
    bool *used = jinja_take(&run->arena, call->n_keywords, sizeof *used);
    if (!used || !jinja_enter(run))
        return v;
    push(run, macro->scope);
    size_t taken = bind_parameters(run, macro->node, call, used);
    bind_rest(run, macro, call, used, taken);
    if (!jinja_failed(run))
        v = capture(run, macro->node->body, run->scope, &left);
    run->scope = scope;
    jinja_leave(run);
    return v;
}

static jinja_value make_macro(jinja_run *run, const jinja_node *node)
{
    jinja_macro *macro = jinja_take(&run->arena, 1, sizeof *macro);
    if (!macro)
        return jinja_error(run, "out of memory");
    *macro =
        (jinja_macro){.node = node, .scope = run->scope, .name = node->value};
    return (jinja_value){.kind = JINJA_MACRO, .as.macro = macro};
}

/* ---- for
 * -----------------------------------------------------------------------------------
 */

/* The loop's test sees the target, but not the loop itself. */
static bool passes(jinja_run *run, const jinja_loop *loop, jinja_value item)
{
    jinja_scope *scope = run->scope;
    if (!loop->node->c)
        return true;
    push(run, loop->scope);
    assign(run, loop->node->a, item);
    bool holds =
        !jinja_failed(run) && jinja_true(jinja_eval(run, loop->node->c));
    run->scope = scope;
    return holds;
}

bool jinja_loop_has(jinja_run *run, jinja_loop *loop, size_t k)
{
    while (loop->n <= k && loop->n_source < loop->source.n &&
           !jinja_failed(run)) {
        jinja_value item = loop->source.item[loop->n_source++];
        if (passes(run, loop, item))
            loop->item[loop->n++] = item;
    }
    return !jinja_failed(run) && k < loop->n;
}

/* One pass a time, each with a scope of its own. */
static void run_passes(jinja_run *run, jinja_loop *loop)
{
    flow left = NEXT;
    jinja_scope *scope = run->scope;
    for (; left != BREAK && jinja_loop_has(run, loop, loop->at); loop->at++) {
        push(run, loop->scope);
        set_name(run, JINJA_LITERAL("loop"),
                 (jinja_value){.kind = JINJA_LOOP, .as.loop = loop});
        assign(run, loop->node->a, loop->item[loop->at]);
        left = run_list(run, loop->node->body);
        run->scope = scope;
    }
}

static void run_loop(jinja_run *run, const jinja_node *node, jinja_scope *scope,
                     jinja_value iterable, int depth0)
{
    jinja_loop *loop = jinja_take(&run->arena, 1, sizeof *loop);
    jinja_list items = {0};
    if (!jinja_failed(run))
        items = jinja_items(run, iterable);
    if (!loop || jinja_failed(run))
        return;
    *loop = (jinja_loop){.node = node,
                         .scope = scope,
                         .source = items,
                         .item = items.item,
                         .depth0 = depth0};
    if (node->c) { /* what passes the test is kept apart */
        loop->item = jinja_take(&run->arena, items.n, sizeof *loop->item);
        if (!loop->item)
            return;
    } else {
        loop->n = loop->n_source = items.n;
    }
    run_passes(run, loop);
    if (!jinja_failed(run) && loop->n == 0 && node->other) {
        jinja_scope *old = run->scope;
        push(run, scope);
        run_list(run, node->other);
        run->scope = old;
    }
}

jinja_value jinja_call_loop(jinja_run *run, const jinja_loop *loop,
                            jinja_value items)
{
    base_str text = {0}, *out = run->out;
    if (!loop->node->flag)
        return jinja_error(run, "The loop must have the 'recursive' marker to "
                                "be called recursively.");
    if (jinja_enter(run)) {
        run->out = &text;
        run_loop(run, loop->node, loop->scope, items, loop->depth0 + 1);
        run->out = out;
        jinja_leave(run);
    }
    return jinja_str_take(run, &text);
}

/* ---- statements
 * ------------------------------------------------------------------------------
 */

static flow run_if(jinja_run *run, const jinja_node *node)
{
    while (node && !jinja_failed(run)) {
        if (jinja_true(jinja_eval(run, node->a)))
            return jinja_failed(run) ? NEXT : run_list(run, node->body);
        bool elif =
            node->other && node->other->kind == JINJA_IF && node->other->flag;
        if (!elif)
            return run_list(run, node->other);
        node = node->other;
    }
    return NEXT;
}

static flow run_with(jinja_run *run, const jinja_node *node)
{
    jinja_scope *outer = run->scope, *inner;
    push(run, outer);
    inner = run->scope;
    for (const jinja_node *t = node->list; t && !jinja_failed(run);
         t = t->next) {
        run->scope = outer; /* values do not see each other */
        jinja_value v = jinja_eval(run, t->b);
        run->scope = inner;
        assign(run, t, v);
    }
    flow left = jinja_failed(run) ? NEXT : run_list(run, node->body);
    run->scope = outer;
    return left;
}

static flow run_set_block(jinja_run *run, const jinja_node *node)
{
    flow left;
    jinja_value v = capture(run, node->body, run->scope, &left);
    if (left == NEXT && !jinja_failed(run))
        assign(run, node->a, jinja_eval_filters(run, node->b, v));
    return left;
}

static flow run_filter_block(jinja_run *run, const jinja_node *node)
{
    flow left;
    jinja_value v = capture(run, node->body, run->scope, &left);
    if (left == NEXT && !jinja_failed(run))
        emit(run, jinja_eval_filters(run, node->a, v));
    return left;
}

static flow run_statement(jinja_run *run, const jinja_node *node)
{
    flow left = NEXT;
    jinja_value v;
    switch ((jinja_node_kind)node->kind) {
    case JINJA_TEXT:
        emit(run, node->value);
        break;
    case JINJA_PRINT:
        emit(run, jinja_eval(run, node->a));
        break;
    case JINJA_FOR:
        v = jinja_eval(run, node->b);
        run_loop(run, node, run->scope, v, 0);
        break;
    case JINJA_IF:
        return run_if(run, node);
    case JINJA_SET:
        assign(run, node->a, jinja_eval(run, node->b));
        break;
    case JINJA_SET_BLOCK:
        return run_set_block(run, node);
    case JINJA_WITH:
        return run_with(run, node);
    case JINJA_DEFINE:
        set_name(run, node->value, make_macro(run, node));
        break;
    case JINJA_CALL_BLOCK:
        v = make_macro(run, node->b);
        emit(run, jinja_eval_call(run, node->a, &v));
        break;
    case JINJA_FILTER_BLOCK:
        return run_filter_block(run, node);
    case JINJA_GENERATION:
        emit(run, capture(run, node->body, run->scope, &left));
        break;
    case JINJA_BREAK:
        return BREAK;
    case JINJA_CONTINUE:
        return CONTINUE;
    default: /* expressions: the parser puts none here */
        jinja_error(run, "not a statement");
    }
    return NEXT;
}

static flow run_list(jinja_run *run, const jinja_node *list)
{
    flow left = NEXT;
    if (!jinja_enter(run))
        return NEXT;
    for (; list && left == NEXT && jinja_step(run, 0); list = list->next) {
        run->fault.line = list->line;
        left = run_statement(run, list);
    }
    jinja_leave(run);
    return left;
}

/* ---- the whole
 * ---------------------------------------------------------------------------------
 */

lori_status jinja_render(const jinja_template *template, json_t *context,
                         int64_t now_s, base_str *out, lori_error *err)
{
    base_str text = {0};
    jinja_scope top = {0};
    jinja_run run = {.arena = {.max = JINJA_MAX_MEMORY},
                     .fault = {.err = err, .name = template->name, .line = 1},
                     .scope = &top,
                     .out = &text,
                     .steps = JINJA_MAX_STEPS,
                     .now_s = now_s};
    jinja_value variables = jinja_from_json(&run, context);
    if (!jinja_failed(&run)) {
        run.context = variables.as.dict;
        run_list(&run, template->body);
    }
    jinja_step(&run, 0);
    if (!jinja_failed(&run)) {
        base_str_add(out, text.len ? text.s : "", text.len);
        if (out->failed)
            run.fault.status = base_no_memory(err, text.len);
    }
    base_str_free(&text);
    jinja_arena_free(&run.arena);
    return run.fault.status;
}
