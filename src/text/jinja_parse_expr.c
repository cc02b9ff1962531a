/* jinja_parse_expr.c - tokens to the tree: expressions, by descent through
 * Jinja's levels of precedence. Note that unary minus binds looser than a
 * power here, and that filters and tests bind tighter than operators.
 * Includes base only. Source: jinja2 parser.py's grammar. */
#include "text/jinja_i.h"

static jinja_node *parse_or(jinja_parser *p);
static jinja_node *parse_unary(jinja_parser *p, bool with_filter);

/* Bounds the recursion; false after a failure, too. */
static bool deeper(jinja_parser *p)
{
    if (++p->nest > JINJA_MAX_NEST)
        jinja_fail(&p->fault, LORI_UNSUPPORTED, "nested too deeply");
    return p->fault.status == LORI_OK;
}

static jinja_node *constant(jinja_parser *p, jinja_value value)
{
    jinja_node *node = jinja_new_node(p, JINJA_CONST);
    node->value = value;
    return node;
}

static jinja_node *pair(jinja_parser *p, jinja_node_kind kind, jinja_node *a,
                        jinja_node *b)
{
    jinja_node *node = jinja_new_node(p, kind);
    node->line = a->line;
    node->a = a;
    node->b = b;
    return node;
}

/* ---- operators
 * ------------------------------------------------------------------ */

jinja_node *jinja_parse_expression(jinja_parser *p, bool conditional)
{
    if (!deeper(p))
        return constant(p, jinja_none());
    jinja_node *unknown = p->unknown, *node = parse_or(p);
    while (conditional && jinja_skip_name(p, "if")) {
        node = pair(p, JINJA_CHOOSE, node, parse_or(p));
        if (jinja_skip_name(p, "else"))
            node->c = jinja_parse_expression(p, true);
        p->unknown = unknown; /* fails only when it is run */
    }
    p->nest--;
    return node;
}

static jinja_node *parse_concat(jinja_parser *p);

static bool compare_op(jinja_parser *p, jinja_op *op)
{
    static const struct {
        const char *text;
        jinja_op op;
    } known[] = {{"==", JINJA_EQ}, {"!=", JINJA_NE}, {"<", JINJA_LT},
                 {"<=", JINJA_LE}, {">", JINJA_GT},  {">=", JINJA_GE}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (jinja_skip_op(p, known[i].text)) {
            *op = known[i].op;
            return true;
        }
    }
    *op = jinja_is_name(&p->now, "not") ? JINJA_NOT_IN : JINJA_IN;
    if (*op == JINJA_NOT_IN && jinja_is_name(&p->ahead, "in"))
        jinja_advance(p);
    return jinja_skip_name(p, "in");
}

/* The current operator with `left` on its left, on the operator's line. */
static jinja_node *binary(jinja_parser *p, jinja_op op, jinja_node *left)
{
    jinja_node *node = jinja_new_node(p, JINJA_BINARY);
    jinja_advance(p);
    node->op = (uint8_t)op;
    node->a = left;
    return node;
}

static jinja_node *parse_sum(jinja_parser *p)
{
    jinja_node *left = parse_concat(p);
    while (jinja_is_op(&p->now, "+") || jinja_is_op(&p->now, "-")) {
        left =
            binary(p, jinja_is_op(&p->now, "+") ? JINJA_ADD : JINJA_SUB, left);
        left->b = parse_concat(p);
    }
    return left;
}

static jinja_node *parse_compare(jinja_parser *p)
{
    jinja_node *first = parse_sum(p), *node = NULL, **end = NULL;
    jinja_op op;
    while (compare_op(p, &op)) {
        if (!node) {
            node = pair(p, JINJA_COMPARE, first, NULL);
            end = &node->list;
        }
        jinja_node *operand = jinja_new_node(p, JINJA_COMPARE);
        operand->op = (uint8_t)op;
        operand->a = parse_sum(p);
        *end = operand;
        end = &operand->next;
    }
    return node ? node : first;
}

static jinja_node *parse_not(jinja_parser *p)
{
    if (!jinja_is_name(&p->now, "not"))
        return parse_compare(p);
    jinja_node *node = jinja_new_node(p, JINJA_NOT);
    jinja_advance(p);
    if (!deeper(p))
        return node;
    node->a = parse_not(p);
    p->nest--;
    return node;
}

static jinja_node *parse_and(jinja_parser *p)
{
    jinja_node *left = parse_not(p);
    while (jinja_skip_name(p, "and"))
        left = pair(p, JINJA_AND, left, parse_not(p));
    return left;
}

static jinja_node *parse_or(jinja_parser *p)
{
    jinja_node *left = parse_and(p);
    while (jinja_skip_name(p, "or"))
        left = pair(p, JINJA_OR, left, parse_and(p));
    return left;
}

static jinja_node *parse_power(jinja_parser *p)
{
    jinja_node *left = parse_unary(p, true);
    while (jinja_is_op(&p->now, "**")) {
        left = binary(p, JINJA_POW, left);
        left->b = parse_unary(p, true);
    }
    return left;
}

static jinja_node *parse_product(jinja_parser *p)
{
    static const struct {
        const char *text;
        jinja_op op;
    } known[] = {{"*", JINJA_MUL},
                 {"/", JINJA_DIV},
                 {"//", JINJA_FLOORDIV},
                 {"%", JINJA_MOD}};
    jinja_node *left = parse_power(p);
    for (size_t i = 0; i < sizeof known / sizeof *known;) {
        if (!jinja_is_op(&p->now, known[i].text)) {
            i++;
            continue;
        }
        left = binary(p, known[i].op, left);
        left->b = parse_power(p);
        i = 0;
    }
    return left;
}

static jinja_node *parse_concat(jinja_parser *p)
{
    jinja_node *first = parse_product(p);
    if (!jinja_is_op(&p->now, "~"))
        return first;
    jinja_node *node = jinja_new_node(p, JINJA_CONCAT), *last = first;
    node->list = first;
    while (jinja_skip_op(p, "~")) {
        last->next = parse_product(p);
        last = last->next;
    }
    return node;
}

/* ---- primaries
 * -------------------------------------------------------------------- */

static void note_use(jinja_parser *p)
{
    if (jinja_is_name(&p->now, "caller"))
        p->uses |= JINJA_USES_CALLER;
    if (jinja_is_name(&p->now, "varargs"))
        p->uses |= JINJA_USES_VARARGS;
    if (jinja_is_name(&p->now, "kwargs"))
        p->uses |= JINJA_USES_KWARGS;
}

static jinja_node *parse_name(jinja_parser *p)
{
    static const struct {
        const char *name;
        jinja_value value;
    } fixed[] = {{"true", {.kind = JINJA_BOOL, .as.b = true}},
                 {"false", {.kind = JINJA_BOOL}},
                 {"none", {.kind = JINJA_NONE}},
                 {"True", {.kind = JINJA_BOOL, .as.b = true}},
                 {"False", {.kind = JINJA_BOOL}},
                 {"None", {.kind = JINJA_NONE}}};
    jinja_node *node = jinja_new_node(p, JINJA_NAME);
    node->value = jinja_str(p->now.s, p->now.n);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (jinja_is_name(&p->now, fixed[i].name)) {
            node->kind = JINJA_CONST;
            node->value = fixed[i].value;
        }
    }
    note_use(p);
    jinja_advance(p);
    return node;
}

/* Strings that follow each other are one. */
static jinja_node *parse_string(jinja_parser *p)
{
    jinja_node *node = constant(p, p->now.value);
    jinja_advance(p);
    while (p->now.kind == JINJA_T_STRING) {
        jinja_value more = p->now.value;
        char *s = jinja_extend(&p->template->arena, node->value.as.s,
                               node->value.n, more.n);
        if (!s)
            break;
        memcpy(s + node->value.n, more.as.s, more.n);
        node->value = jinja_str(s, (size_t)node->value.n + more.n);
        jinja_advance(p);
    }
    return node;
}

static jinja_node *parse_list(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_MAKE_LIST), **end = &node->list;
    jinja_advance(p);
    while (!jinja_is_op(&p->now, "]") && p->fault.status == LORI_OK) {
        *end = jinja_parse_expression(p, true);
        end = &(*end)->next;
        if (!jinja_skip_op(p, ","))
            break;
    }
    jinja_expect_op(p, "]");
    return node;
}

static jinja_node *parse_dict(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_MAKE_DICT), **end = &node->list;
    jinja_advance(p);
    while (!jinja_is_op(&p->now, "}") && p->fault.status == LORI_OK) {
        jinja_node *item = jinja_new_node(p, JINJA_MAKE_DICT);
        item->a = jinja_parse_expression(p, true);
        jinja_expect_op(p, ":");
        item->b = jinja_parse_expression(p, true);
        *end = item;
        end = &item->next;
        if (!jinja_skip_op(p, ","))
            break;
    }
    jinja_expect_op(p, "}");
    return node;
}

static bool tuple_ends(const jinja_parser *p, const char *end)
{
    return p->now.kind == JINJA_T_PRINT_END ||
           p->now.kind == JINJA_T_BLOCK_END || jinja_is_op(&p->now, ")") ||
           (end && jinja_is_name(&p->now, end));
}

/* One part of a tuple: of a target a name only. */
typedef jinja_node *parse_part(jinja_parser *p, bool option);

/* `empty`: no expression at all is the empty tuple. */
static jinja_node *parse_parts(jinja_parser *p, parse_part *part, bool option,
                               const char *finish, bool empty)
{
    jinja_node *first = NULL, **end = &first;
    bool comma = false;
    while (!tuple_ends(p, finish) && p->fault.status == LORI_OK) {
        *end = part(p, option);
        end = &(*end)->next;
        if (!jinja_skip_op(p, ","))
            break;
        comma = true;
    }
    if (first && !comma)
        return first;
    if (!first && !empty)
        jinja_unexpected(p, "an expression");
    jinja_node *node = jinja_new_node(p, JINJA_MAKE_TUPLE);
    node->list = first;
    return node;
}

jinja_node *jinja_parse_tuple(jinja_parser *p, bool conditional,
                              const char *end)
{
    return parse_parts(p, jinja_parse_expression, conditional, end, false);
}

static jinja_node *parse_primary(jinja_parser *p)
{
    switch (p->now.kind) {
    case JINJA_T_NAME:
        return parse_name(p);
    case JINJA_T_STRING:
        return parse_string(p);
    case JINJA_T_NUMBER: {
        jinja_node *node = constant(p, p->now.value);
        jinja_advance(p);
        return node;
    }
    default:
        break;
    }
    if (jinja_skip_op(p, "(")) {
        jinja_node *node =
            parse_parts(p, jinja_parse_expression, true, NULL, true);
        jinja_expect_op(p, ")");
        return node;
    }
    if (jinja_is_op(&p->now, "["))
        return parse_list(p);
    if (jinja_is_op(&p->now, "{"))
        return parse_dict(p);
    jinja_unexpected(p, "an expression");
    return constant(p, jinja_none());
}

/* ---- targets of assignments
 * --------------------------------------------------------- */

jinja_node *jinja_parse_name_target(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_NAME);
    if (p->now.kind != JINJA_T_NAME) {
        jinja_unexpected(p, "a name");
        return node;
    }
    node = parse_name(p);
    if (node->kind != JINJA_NAME)
        jinja_fail(&p->fault, LORI_FORMAT, "can't assign to a constant");
    return node;
}

static jinja_node *target_part(jinja_parser *p, bool namespaces)
{
    if (jinja_skip_op(p, "(")) {
        jinja_node *node = jinja_parse_target(p, NULL, namespaces);
        jinja_expect_op(p, ")");
        return node;
    }
    jinja_node *node = jinja_parse_name_target(p);
    if (namespaces && jinja_skip_op(p, ".")) {
        node->kind = JINJA_NS_NAME;
        node->a = jinja_new_node(p, JINJA_NAME);
        if (p->now.kind != JINJA_T_NAME)
            jinja_unexpected(p, "a name");
        node->a->value = jinja_str(p->now.s, p->now.n);
        jinja_advance(p);
    }
    return node;
}

jinja_node *jinja_parse_target(jinja_parser *p, const char *end,
                               bool namespaces)
{
    if (!deeper(p))
        return jinja_new_node(p, JINJA_NAME);
    jinja_node *node = parse_parts(p, target_part, namespaces, end, false);
    p->nest--;
    return node;
}

/* ---- what follows a primary
 * ----------------------------------------------------------- */

static jinja_node *parse_argument(jinja_parser *p)
{
    jinja_node *node = jinja_new_node(p, JINJA_ARGUMENT);
    node->op = JINJA_POSITIONAL;
    if (jinja_skip_op(p, "*")) {
        node->op = JINJA_STAR;
    } else if (jinja_skip_op(p, "**")) {
        node->op = JINJA_STAR_STAR;
    } else if (p->now.kind == JINJA_T_NAME && jinja_is_op(&p->ahead, "=")) {
        node->op = JINJA_KEYWORD;
        node->value = jinja_str(p->now.s, p->now.n);
        jinja_advance(p);
        jinja_advance(p);
    }
    node->a = jinja_parse_expression(p, true);
    return node;
}

/* "(...)" to a chain of ARGUMENT: positional, keywords, *list, **dict. */
static jinja_node *parse_arguments(jinja_parser *p)
{
    jinja_node *first = NULL, **end = &first;
    uint8_t before = JINJA_POSITIONAL;
    jinja_expect_op(p, "(");
    while (!jinja_is_op(&p->now, ")") && p->fault.status == LORI_OK) {
        jinja_node *argument = parse_argument(p);
        bool repeated = argument->op == before && before >= JINJA_STAR;
        bool keyword_later =
            argument->op == JINJA_KEYWORD && before == JINJA_STAR;
        if (repeated || (argument->op < before && !keyword_later))
            jinja_fail(&p->fault, LORI_FORMAT,
                       "invalid syntax for function call expression");
        if (!keyword_later)
            before = argument->op;
        *end = argument;
        end = &argument->next;
        if (!jinja_skip_op(p, ","))
            break;
    }
    jinja_expect_op(p, ")");
    return first;
}

static jinja_node *parse_call(jinja_parser *p, jinja_node *callee)
{
    jinja_node *node = pair(p, JINJA_CALL, callee, NULL);
    node->line = p->now.line;
    node->list = parse_arguments(p);
    return node;
}

static jinja_node *bound(jinja_parser *p)
{
    if (jinja_is_op(&p->now, ":") || jinja_is_op(&p->now, "]") ||
        jinja_is_op(&p->now, ","))
        return constant(p, jinja_none());
    return jinja_parse_expression(p, true);
}

/* An index, or start:stop:step. */
static jinja_node *parse_index(jinja_parser *p, bool option)
{
    (void)option;
    jinja_node *start = bound(p);
    if (!jinja_is_op(&p->now, ":"))
        return start;
    jinja_node *slice = jinja_new_node(p, JINJA_SLICE);
    slice->list = start;
    jinja_advance(p);
    start->next = bound(p);
    start->next->next =
        jinja_skip_op(p, ":") ? bound(p) : constant(p, jinja_none());
    return slice;
}

static jinja_node *parse_subscript(jinja_parser *p, jinja_node *owner)
{
    jinja_node *node = pair(p, JINJA_ITEM, owner, NULL);
    if (jinja_skip_op(p, ".")) {
        if (p->now.kind == JINJA_T_NAME) {
            node->kind = JINJA_ATTRIBUTE;
            node->value = jinja_str(p->now.s, p->now.n);
        } else if (p->now.kind == JINJA_T_NUMBER &&
                   p->now.value.kind == JINJA_INT) {
            node->b = constant(p, p->now.value);
        } else {
            jinja_unexpected(p, "a name or number");
        }
        jinja_advance(p);
        return node;
    }
    jinja_advance(p);
    jinja_node *index = parse_index(p, false);
    if (jinja_is_op(&p->now, ",")) {
        jinja_node *tuple = jinja_new_node(p, JINJA_MAKE_TUPLE);
        tuple->list = index;
        for (jinja_node *last = index; jinja_skip_op(p, ","); last = last->next)
            last->next = parse_index(p, false);
        for (const jinja_node *i = tuple->list; i; i = i->next)
            if (i->kind == JINJA_SLICE)
                jinja_fail(&p->fault, LORI_UNSUPPORTED,
                           "a slice inside a tuple index");
        index = tuple;
    }
    jinja_expect_op(p, "]");
    if (index->kind == JINJA_SLICE) {
        index->a = owner;
        return index;
    }
    node->b = index;
    return node;
}

static jinja_node *parse_postfix(jinja_parser *p, jinja_node *node)
{
    int links = 0; /* a chain is a tree as deep as it is long */
    while (p->fault.status == LORI_OK) {
        if (++links > JINJA_MAX_NEST)
            jinja_fail(&p->fault, LORI_UNSUPPORTED, "nested too deeply");
        if (jinja_is_op(&p->now, ".") || jinja_is_op(&p->now, "["))
            node = parse_subscript(p, node);
        else if (jinja_is_op(&p->now, "("))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* A name of several parts ("a.b"), as filters and tests may have. */
static jinja_value dotted_name(jinja_parser *p)
{
    const char *from = p->now.s, *to = from;
    do {
        if (p->now.kind != JINJA_T_NAME)
            jinja_unexpected(p, "a name");
        to = p->now.s + p->now.n;
        jinja_advance(p);
    } while (jinja_skip_op(p, ".") && p->fault.status == LORI_OK);
    return jinja_str(from, (size_t)(to - from));
}

static void find_builtin(jinja_parser *p, jinja_node *node)
{
    bool filter = node->kind == JINJA_FILTER;
    node->builtin = filter ? jinja_find_filter(node->value.as.s, node->value.n)
                           : jinja_find_test(node->value.as.s, node->value.n);
    if (!node->builtin && !p->soft && !p->unknown)
        p->unknown = node;
}

jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *node,
                                bool inline_first)
{
    int links = 0;
    while (inline_first || jinja_skip_op(p, "|")) {
        jinja_node *filter = jinja_new_node(p, JINJA_FILTER);
        filter->a = node;
        if (++links > JINJA_MAX_NEST)
            jinja_fail(&p->fault, LORI_UNSUPPORTED, "nested too deeply");
        if (p->fault.status != LORI_OK)
            break;
        filter->value = dotted_name(p);
        find_builtin(p, filter);
        if (jinja_is_op(&p->now, "("))
            filter->list = parse_arguments(p);
        node = filter;
        inline_first = false;
    }
    return node;
}

/* A test's argument may stand without brackets: "is divisibleby 3". */
static bool has_bare_argument(const jinja_parser *p)
{
    if (p->now.kind == JINJA_T_NAME)
        return !jinja_is_name(&p->now, "else") &&
               !jinja_is_name(&p->now, "or") && !jinja_is_name(&p->now, "and");
    return p->now.kind == JINJA_T_STRING || p->now.kind == JINJA_T_NUMBER ||
           jinja_is_op(&p->now, "[") || jinja_is_op(&p->now, "{");
}

static jinja_node *parse_test(jinja_parser *p, jinja_node *value)
{
    jinja_advance(p);
    bool negated = jinja_skip_name(p, "not");
    jinja_node *node = pair(p, JINJA_TEST, value, NULL);
    node->line = p->now.line;
    node->value = dotted_name(p);
    find_builtin(p, node);
    if (jinja_is_op(&p->now, "(")) {
        node->list = parse_arguments(p);
    } else if (jinja_is_name(&p->now, "is")) {
        jinja_fail(&p->fault, LORI_FORMAT,
                   "You cannot chain multiple tests with is");
    } else if (has_bare_argument(p)) {
        node->list = jinja_new_node(p, JINJA_ARGUMENT);
        node->list->op = JINJA_POSITIONAL;
        node->list->a = parse_postfix(p, parse_primary(p));
    }
    return negated ? pair(p, JINJA_NOT, node, NULL) : node;
}

static jinja_node *parse_filters_and_tests(jinja_parser *p, jinja_node *node)
{
    int links = 0;
    while (p->fault.status == LORI_OK) {
        if (++links > JINJA_MAX_NEST)
            jinja_fail(&p->fault, LORI_UNSUPPORTED, "nested too deeply");
        if (jinja_is_op(&p->now, "|"))
            node = jinja_parse_filters(p, node, false);
        else if (jinja_is_name(&p->now, "is"))
            node = parse_test(p, node);
        else if (jinja_is_op(&p->now, "("))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

static jinja_node *parse_unary(jinja_parser *p, bool with_filter)
{
    jinja_node *node;
    if (!deeper(p))
        return constant(p, jinja_none());
    if (jinja_is_op(&p->now, "-") || jinja_is_op(&p->now, "+")) {
        node = jinja_new_node(p, jinja_is_op(&p->now, "-") ? JINJA_NEGATE
                                                           : JINJA_PLUS);
        jinja_advance(p);
        node->a = parse_unary(p, false);
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    if (with_filter)
        node = parse_filters_and_tests(p, node);
    p->nest--;
    return node;
}
