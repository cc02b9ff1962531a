/* jinja_eval.c - runs expressions: names, operators, calls and their
 * arguments, filters and tests. After the run's first failure everything
 * returns at once. Includes base only. */
#include "text/jinja_i.h"

static jinja_value lookup(jinja_run *run, jinja_value name)
{
    for (const jinja_scope *s = run->scope; s; s = s->up)
        for (const jinja_binding *b = s->first; b; b = b->next)
            if (jinja_same_text(b->name, name.as.s, name.n))
                return b->value;
    const jinja_value *given = jinja_dict_find(run, run->context, name);
    if (given)
        return *given;
    const jinja_builtin *global = jinja_find_global(name.as.s, name.n);
    if (global)
        return (jinja_value){.kind = JINJA_FUNCTION, .as.function = global};
    return jinja_undefined_name(run, name);
}

/* ---- arguments
 * ---------------------------------------------------------------- */

static void add_keyword(jinja_run *run, jinja_call *call, jinja_value name,
                        jinja_value value)
{
    for (size_t i = 0; i < call->n_keywords; i++)
        if (jinja_same_text(call->keyword[i].name, name.as.s, name.n))
            jinja_error(run, "got multiple values for keyword argument '%.*s'",
                        (int)name.n, name.as.s);
    call->keyword[call->n_keywords++] = (jinja_keyword){name, value};
}

/* Room for more arguments than the call's text has: *list, **dict. */
static void make_room(jinja_run *run, jinja_call *call, size_t n,
                      size_t n_keywords)
{
    jinja_value *arg = jinja_take(&run->arena, call->n + n, sizeof *arg);
    jinja_keyword *keyword =
        jinja_take(&run->arena, call->n_keywords + n_keywords, sizeof *keyword);
    if (!jinja_step(run, (n + n_keywords) * 16) || !arg || !keyword)
        return;
    if (call->n)
        memcpy(arg, call->arg, call->n * sizeof *arg);
    if (call->n_keywords)
        memcpy(keyword, call->keyword, call->n_keywords * sizeof *keyword);
    call->arg = arg;
    call->keyword = keyword;
}

static size_t count(const jinja_node *list)
{
    size_t n = 0;
    for (; list; list = list->next)
        n++;
    return n;
}

static void spread_list(jinja_run *run, jinja_call *call, jinja_value v,
                        size_t more)
{
    jinja_list items = jinja_items(run, v);
    make_room(run, call, items.n + more, more);
    if (jinja_failed(run))
        return;
    if (items.n)
        memcpy(call->arg + call->n, items.item, items.n * sizeof *items.item);
    call->n += items.n;
}

static void spread_dict(jinja_run *run, jinja_call *call, jinja_value v,
                        size_t more)
{
    if (v.kind != JINJA_DICT) {
        jinja_error(run, "argument after ** must be a mapping, not %s",
                    jinja_type(v));
        return;
    }
    make_room(run, call, more, v.as.dict->n + more);
    for (size_t i = 0; i < v.as.dict->n && !jinja_failed(run); i++) {
        const jinja_entry *e = &v.as.dict->entry[i];
        if (e->key.kind == JINJA_STR)
            add_keyword(run, call, e->key, e->value);
        else
            jinja_error(run, "keywords must be strings");
    }
}

/* One slot is kept for `caller`. */
static jinja_call eval_arguments(jinja_run *run, const jinja_node *list,
                                 const jinja_value *caller)
{
    jinja_call call = {0};
    size_t left = count(list);
    if (left || caller)
        make_room(run, &call, left, left + 1);
    for (const jinja_node *a = list; a && !jinja_failed(run); a = a->next) {
        jinja_value v = jinja_eval(run, a->a);
        left--;
        if (jinja_failed(run))
            break;
        if (a->op == JINJA_POSITIONAL)
            call.arg[call.n++] = v;
        else if (a->op == JINJA_KEYWORD)
            add_keyword(run, &call, a->value, v);
        else if (a->op == JINJA_STAR)
            spread_list(run, &call, v, left + 1);
        else
            spread_dict(run, &call, v, left + 1);
    }
    if (caller && !jinja_failed(run))
        add_keyword(run, &call, JINJA_LITERAL("caller"), *caller);
    return call;
}

/* Position of a name in "a,b,c", -1 when it is not there. */
static int parameter(const char *params, jinja_value name)
{
    int k = 0;
    for (const char *at = params; *at; k++) {
        size_t n = strcspn(at, ",");
        if (jinja_same_text(name, at, n))
            return k;
        at += n + (at[n] == ',');
    }
    return -1;
}

static int parameters(const char *params)
{
    int n = *params != '\0';
    for (; *params; params++)
        n += *params == ',';
    return n;
}

static void bind(jinja_run *run, const jinja_builtin *b, const jinja_call *call,
                 jinja_value arg[JINJA_MAX_PARAMS])
{
    size_t n = (size_t)parameters(b->params);
    if (call->n > n) {
        jinja_error(run, "%s takes at most %zu arguments, got %zu", b->name, n,
                    call->n);
        return;
    }
    for (size_t i = 0; i < call->n; i++)
        arg[i] = call->arg[i];
    for (size_t i = 0; i < call->n_keywords; i++) {
        jinja_value name = call->keyword[i].name;
        int k = parameter(b->params, name);
        if (k < 0)
            jinja_error(run, "%s got an unexpected keyword argument '%.*s'",
                        b->name, (int)name.n, name.as.s);
        else if (arg[k].kind != JINJA_MISSING)
            jinja_error(run, "%s got multiple values for argument '%.*s'",
                        b->name, (int)name.n, name.as.s);
        else
            arg[k] = call->keyword[i].value;
    }
    for (int k = 0; k < b->required; k++)
        if (arg[k].kind == JINJA_MISSING)
            jinja_error(run, "%s is missing a required argument", b->name);
}

jinja_value jinja_call_builtin(jinja_run *run, const jinja_builtin *b,
                               jinja_value self, const jinja_call *call)
{
    jinja_value arg[JINJA_MAX_PARAMS] = {0}, v = self;
    if (b->params)
        bind(run, b, call, arg);
    if (jinja_enter(run)) {
        v = b->run(run, self, arg, call);
        jinja_leave(run);
    }
    return v;
}

/* ---- calls, filters, tests
 * ------------------------------------------------------- */

static jinja_value call_joiner(jinja_joiner *joiner)
{
    jinja_value v = joiner->used ? joiner->separator : JINJA_LITERAL("");
    joiner->used = true;
    return v;
}

jinja_value jinja_call_value(jinja_run *run, jinja_value callee,
                             const jinja_call *call)
{
    switch (callee.kind) {
    case JINJA_MACRO:
        return jinja_call_macro(run, callee.as.macro, call);
    case JINJA_FUNCTION:
        return jinja_call_builtin(run, callee.as.function, callee, call);
    case JINJA_METHOD:
        return jinja_call_builtin(run, callee.as.method->builtin,
                                  callee.as.method->self, call);
    case JINJA_LOOP:
        if (call->n == 1 && call->n_keywords == 0)
            return jinja_call_loop(run, callee.as.loop, call->arg[0]);
        return jinja_error(run, "loop() takes one argument");
    case JINJA_JOINER:
        return call_joiner(callee.as.joiner);
    case JINJA_UNDEFINED:
        return jinja_use_undefined(run, callee);
    default:
        return jinja_error(run, "'%s' object is not callable",
                           jinja_type(callee));
    }
}

jinja_value jinja_eval_call(jinja_run *run, const jinja_node *node,
                            const jinja_value *caller)
{
    jinja_value callee = jinja_eval(run, node->a);
    jinja_call call = eval_arguments(run, node->list, caller);
    run->fault.line = node->line;
    if (jinja_failed(run))
        return callee;
    return jinja_call_value(run, callee, &call);
}

static jinja_value lazy_filter(jinja_run *run, const jinja_builtin *filter,
                               jinja_value self, const jinja_call *call)
{
    jinja_iterator *it = jinja_take(&run->arena, 1, sizeof *it);
    if (!jinja_step(run, sizeof *it) || !it)
        return self;
    *it = (jinja_iterator){
        .type = "generator", .filter = filter, .self = self, .call = *call};
    return (jinja_value){.kind = JINJA_ITERATOR, .as.iterator = it};
}

static jinja_value apply(jinja_run *run, const jinja_node *node,
                         jinja_value self)
{
    jinja_call call = eval_arguments(run, node->list, NULL);
    run->fault.line = node->line;
    if (jinja_failed(run))
        return self;
    if (!node->builtin)
        return jinja_error(run, "No %s named '%.*s' found",
                           node->kind == JINJA_FILTER ? "filter" : "test",
                           (int)node->value.n, node->value.as.s);
    if (node->builtin->lazy)
        return lazy_filter(run, node->builtin, self, &call);
    return jinja_call_builtin(run, node->builtin, self, &call);
}

jinja_value jinja_eval_filters(jinja_run *run, const jinja_node *node,
                               jinja_value start)
{
    if (!node || !jinja_enter(run))
        return start;
    jinja_value v = apply(run, node, jinja_eval_filters(run, node->a, start));
    jinja_leave(run);
    return v;
}

/* ---- expressions
 * -------------------------------------------------------------------- */

static jinja_value make_list(jinja_run *run, const jinja_node *node,
                             jinja_kind kind)
{
    jinja_value *item;
    jinja_value v = jinja_list_new(run, kind, count(node->list), &item);
    size_t i = 0;
    for (const jinja_node *e = node->list; e && !jinja_failed(run); e = e->next)
        item[i++] = jinja_eval(run, e);
    return v;
}

static jinja_value make_dict(jinja_run *run, const jinja_node *node)
{
    jinja_value v = jinja_dict_new(run, count(node->list));
    for (const jinja_node *e = node->list; e && !jinja_failed(run);
         e = e->next) {
        jinja_value key = jinja_eval(run, e->a);
        jinja_value value = jinja_eval(run, e->b);
        if (!jinja_failed(run))
            jinja_dict_set(run, v.as.dict, key, value);
    }
    return v;
}

static jinja_value concat(jinja_run *run, const jinja_node *node)
{
    base_str text = {0};
    for (const jinja_node *e = node->list; e && !jinja_failed(run);
         e = e->next) {
        jinja_put_str(run, jinja_eval(run, e), &text);
        if (text.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
    }
    return jinja_str_take(run, &text);
}

/* a < b < c: every operand is run once, and only as far as needed. */
static jinja_value compare(jinja_run *run, const jinja_node *node)
{
    jinja_value left = jinja_eval(run, node->a);
    bool holds = true;
    for (const jinja_node *e = node->list; e && holds && !jinja_failed(run);
         e = e->next) {
        jinja_value right = jinja_eval(run, e->a);
        run->fault.line = jinja_failed(run) ? run->fault.line : e->line;
        if (!jinja_failed(run))
            holds = jinja_compare(run, (jinja_op)e->op, left, right);
        left = right;
    }
    return jinja_bool(holds);
}

static jinja_value slice(jinja_run *run, const jinja_node *node)
{
    jinja_value v = jinja_eval(run, node->a), part[3];
    int k = 0;
    for (const jinja_node *e = node->list; e; e = e->next)
        part[k++] = jinja_eval(run, e);
    return jinja_failed(run) ? v : jinja_slice(run, v, part);
}

static jinja_value choose(jinja_run *run, const jinja_node *node)
{
    if (jinja_true(jinja_eval(run, node->b)))
        return jinja_eval(run, node->a);
    if (node->c)
        return jinja_eval(run, node->c);
    return jinja_undefined_hint(run,
                                "the inline if-expression evaluated to false "
                                "and no else section was defined");
}

static jinja_value unary(jinja_run *run, const jinja_node *node)
{
    jinja_value v = jinja_eval(run, node->a);
    if (node->kind == JINJA_NOT)
        return jinja_bool(!jinja_true(v));
    if (jinja_failed(run))
        return v;
    if (node->kind == JINJA_NEGATE || v.kind != JINJA_FLOAT)
        v = jinja_negate(run, v);
    return node->kind == JINJA_PLUS && v.kind == JINJA_INT
               ? jinja_negate(run, v)
               : v;
}

static jinja_value eval_pair(jinja_run *run, const jinja_node *node)
{
    jinja_value a = jinja_eval(run, node->a);
    if (node->kind == JINJA_AND && !jinja_true(a))
        return a;
    if (node->kind == JINJA_OR && jinja_true(a))
        return a;
    jinja_value b = jinja_eval(run, node->b);
    if (jinja_failed(run) || node->kind == JINJA_AND || node->kind == JINJA_OR)
        return b;
    run->fault.line = node->line;
    if (node->kind == JINJA_ITEM)
        return jinja_get_item(run, a, b);
    return jinja_binary(run, (jinja_op)node->op, a, b);
}

static jinja_value attribute(jinja_run *run, const jinja_node *node)
{
    jinja_value owner = jinja_eval(run, node->a);
    return jinja_failed(run) ? owner
                             : jinja_get_attribute(run, owner, node->value);
}

static jinja_value eval(jinja_run *run, const jinja_node *node)
{
    switch ((jinja_node_kind)node->kind) {
    case JINJA_CONST:
        return node->value;
    case JINJA_NAME:
        return lookup(run, node->value);
    case JINJA_MAKE_TUPLE:
        return make_list(run, node, JINJA_TUPLE);
    case JINJA_MAKE_LIST:
        return make_list(run, node, JINJA_LIST);
    case JINJA_MAKE_DICT:
        return make_dict(run, node);
    case JINJA_ATTRIBUTE:
        return attribute(run, node);
    case JINJA_SLICE:
        return slice(run, node);
    case JINJA_CALL:
        return jinja_eval_call(run, node, NULL);
    case JINJA_FILTER:
    case JINJA_TEST:
        return apply(run, node, jinja_eval(run, node->a));
    case JINJA_NOT:
    case JINJA_NEGATE:
    case JINJA_PLUS:
        return unary(run, node);
    case JINJA_ITEM:
    case JINJA_BINARY:
    case JINJA_AND:
    case JINJA_OR:
        return eval_pair(run, node);
    case JINJA_CONCAT:
        return concat(run, node);
    case JINJA_COMPARE:
        return compare(run, node);
    case JINJA_CHOOSE:
        return choose(run, node);
    default: /* statements: the parser puts none here */
        return jinja_error(run, "not an expression");
    }
}

jinja_value jinja_eval(jinja_run *run, const jinja_node *node)
{
    jinja_value v = {.kind = JINJA_UNDEFINED};
    if (!jinja_step(run, 0))
        return v;
    run->fault.line = node->line;
    if (jinja_enter(run))
        v = eval(run, node);
    jinja_leave(run);
    return v;
}
