/* chat_find.c - the chat templates of a model folder: chat_template.jinja and
 * additional_chat_templates/NAME.jinja, else tokenizer_config.json's string,
 * list or object. Any .jinja file replaces what the config says, as in
 * transformers 5. Includes base, format. Source: spec/hf.md 4. */
#include <dirent.h>
#include <stdlib.h>

#include "text/jinja_i.h"
#include "text/text_i.h"

#define SUFFIX ".jinja"

static lori_status add(text_tokenizer *tok, const char *name, const char *file,
                       const char *text, size_t n, lori_error *err)
{
    size_t valid = base_utf8_valid(text, n);
    if (valid != n)
        return base_fail(err, LORI_FORMAT, "%s: not UTF-8 at byte %zu", file,
                         valid);
    if (!tok->templates)
        tok->templates = json_object();
    json_t *row = json_pack("[s, s%]", file, text, n);
    if (!row || json_object_set_new(tok->templates, name, row) != 0)
        return base_no_memory(err, n);
    return LORI_OK;
}

static lori_status add_file(text_tokenizer *tok, const char *name,
                            const char *path, lori_error *err)
{
    char *text;
    size_t n;
    BASE_TRY(base_file_read(path, JINJA_MAX_SOURCE, &text, &n, err));
    lori_status st = add(tok, name, path, text, n, err);
    free(text);
    return st;
}

/* NAME of "NAME.jinja", to be freed; NULL for other files. */
static char *template_name(const char *file)
{
    size_t n = strlen(file), m = strlen(SUFFIX);
    if (n <= m || file[0] == '.' || strcmp(file + n - m, SUFFIX) != 0)
        return NULL;
    return base_strndup(file, n - m);
}

static lori_status add_more(text_tokenizer *tok, const char *folder,
                            lori_error *err)
{
    char *path = base_path_join(folder, "additional_chat_templates");
    DIR *dir = path ? opendir(path) : NULL;
    lori_status st = path ? LORI_OK : base_no_memory(err, strlen(folder));
    const struct dirent *entry;
    while (dir && st == LORI_OK && (entry = readdir(dir))) {
        char *name = template_name(entry->d_name);
        char *file = name ? base_path_join(path, entry->d_name) : NULL;
        if (file)
            st = add_file(tok, name, file, err);
        free(name);
        free(file);
    }
    if (dir)
        closedir(dir);
    free(path);
    return st;
}

/* A template of tokenizer_config.json; `label` names it when it has a name. */
static lori_status add_value(text_tokenizer *tok, const json_t *value,
                             const char *config_path, const char *name,
                             bool label, lori_error *err)
{
    base_str file = {0};
    if (!name || !json_is_string(value))
        return base_fail(err, LORI_FORMAT,
                         "%s: chat_template is neither a string nor a list of "
                         "objects with 'name' and 'template'",
                         config_path);
    base_str_printf(&file, "%s chat_template", config_path);
    if (label)
        base_str_printf(&file, " '%s'", name);
    if (file.failed)
        return base_no_memory(err, file.len);
    lori_status st = add(tok, name, file.s, json_string_value(value),
                         json_string_length(value), err);
    base_str_free(&file);
    return st;
}

static lori_status add_config(text_tokenizer *tok, json_t *value,
                              const char *config_path, lori_error *err)
{
    if (!value || json_is_null(value))
        return LORI_OK;
    if (!json_is_array(value) && !json_is_object(value))
        return add_value(tok, value, config_path, "default", false, err);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        BASE_TRY(add_value(tok, json_object_get(item, "template"), config_path,
                           name, true, err));
    }
    for (void *it = json_object_iter(value); it;
         it = json_object_iter_next(value, it))
        BASE_TRY(add_value(tok, json_object_iter_value(it), config_path,
                           json_object_iter_key(it), true, err));
    return LORI_OK;
}

lori_status text_chat_find(text_tokenizer *tok, const char *folder,
                           json_t *config, const char *config_path,
                           lori_error *err)
{
    lori_status st = LORI_OK;
    char *path = base_path_join(folder, "chat_template.jinja");
    if (!path)
        return base_no_memory(err, strlen(folder));
    if (base_is_file(path))
        st = add_file(tok, "default", path, err);
    free(path);
    if (st == LORI_OK)
        st = add_more(tok, folder, err);
    if (st == LORI_OK && !tok->templates)
        st = add_config(tok, json_object_get(config, "chat_template"),
                        config_path, err);
    return st;
}
