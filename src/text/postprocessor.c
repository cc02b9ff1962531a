/* postprocessor.c - what is put around a text's ids when special tokens are
 * asked for: none, ByteLevel (it changes offsets only), TemplateProcessing
 * of a single text, and sequences. Every other type is refused by name.
 * Includes base, format. Source: spec/text.md 1.5. */
#include <stdlib.h>

#include "text/text_i.h"

static lori_status push(text_post *post, int32_t item, const char *file,
                        lori_error *err)
{
    if (post->n == TEXT_MAX_POST_ITEMS)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: a post-processor of more than %d items", file,
                         TEXT_MAX_POST_ITEMS);
    int32_t *items = base_resize(post->item, post->n + 1, sizeof *items);
    if (!items)
        return base_no_memory(err, (post->n + 1) * sizeof *items);
    post->item = items;
    post->item[post->n++] = item;
    return LORI_OK;
}

/* The ids of one {"SpecialToken": {"id": NAME}} item. */
static lori_status push_special(text_post *post, const json_t *json,
                                const json_t *item, const char *file,
                                lori_error *err)
{
    const char *name = NULL;
    BASE_TRY(format_get_str(item, file, "id", true, &name, err));
    const json_t *special =
        json_object_get(json_object_get(json, "special_tokens"), name);
    const json_t *ids = json_object_get(special, "ids");
    if (!json_is_array(ids))
        return base_fail(err, LORI_FORMAT,
                         "%s: TemplateProcessing has no ids for its special "
                         "token '%s'",
                         file, name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > TEXT_MAX_ID)
            return base_fail(err, LORI_FORMAT,
                             "%s: TemplateProcessing: an id of '%s' is not a "
                             "number from 0 to %d",
                             file, name, TEXT_MAX_ID);
        BASE_TRY(push(post, (int32_t)value, file, err));
    }
    return LORI_OK;
}

/* Puts the template around what `post` is already. */
static lori_status add_template(const json_t *json, const char *file,
                                text_post *post, lori_error *err)
{
    const json_t *single = json_object_get(json, "single");
    text_post inner = *post;
    lori_status st = LORI_OK;
    post->item = NULL;
    post->n = 0;
    if (!json_is_array(single))
        st = base_fail(err, LORI_FORMAT,
                       "%s: TemplateProcessing without a list 'single'", file);
    for (size_t i = 0; st == LORI_OK && i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        const json_t *sequence = json_object_get(item, "Sequence");
        const char *id = NULL;
        if (special) {
            st = push_special(post, json, special, file, err);
            continue;
        }
        if (!json_is_object(sequence))
            st = base_fail(err, LORI_FORMAT,
                           "%s: TemplateProcessing: single[%zu] is neither a "
                           "SpecialToken nor a Sequence",
                           file, i);
        if (st == LORI_OK)
            st = format_get_str(sequence, file, "id", true, &id, err);
        if (st == LORI_OK && strcmp(id, "A") != 0)
            st = base_fail(err, LORI_FORMAT,
                           "%s: TemplateProcessing: 'single' uses sequence %s",
                           file, id);
        for (size_t k = 0; st == LORI_OK && k < inner.n; k++)
            st = push(post, inner.item[k], file, err);
    }
    text_post_free(&inner);
    return st;
}

/* Both flags may be absent from old files; the reference wants them. */
static lori_status add_byte_level(const json_t *json, const char *file,
                                  text_post *post, lori_error *err)
{
    bool prefix = true, trim = true;
    BASE_TRY(
        format_get_bool(json, file, "add_prefix_space", false, &prefix, err));
    BASE_TRY(format_get_bool(json, file, "trim_offsets", false, &trim, err));
    if (!trim)
        return LORI_OK;
    if (post->n_trims == TEXT_MAX_TRIMS)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: more than %d ByteLevel post-processors", file,
                         TEXT_MAX_TRIMS);
    post->trim_prefix[post->n_trims++] = prefix;
    return LORI_OK;
}

static lori_status add_any(const json_t *json, const char *file,
                           text_post *post, lori_error *err)
{
    const char *type;
    BASE_TRY(text_component_type(json, file, "post-processor", &type, err));
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(json, file, post, err);
    if (strcmp(type, "TemplateProcessing") == 0)
        return add_template(json, file, post, err);
    if (strcmp(type, "Sequence") != 0)
        return text_unsupported(file, "post-processor", type,
                                "ByteLevel, Sequence, TemplateProcessing", err);
    const json_t *list = json_object_get(json, "processors");
    if (!json_is_array(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: a post-processor Sequence without a list of "
                         "processors",
                         file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(add_any(json_array_get(list, i), file, post, err));
    return LORI_OK;
}

lori_status text_post_parse(const json_t *json, const char *file,
                            text_post *out, lori_error *err)
{
    BASE_TRY(push(out, -1, file, err));
    if (!json || json_is_null(json))
        return LORI_OK;
    return add_any(json, file, out, err);
}

void text_post_free(text_post *post)
{
    free(post->item);
    *post = (text_post){0};
}
