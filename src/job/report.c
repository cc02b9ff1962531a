/* report.c - the pair of JSON and text that every job ends with. */
#include "job/job_i.h"

#include <stdlib.h>

struct lori_report {
    char *json, *text;
};

lori_status report_new(json_t *facts, base_str *text, lori_report **out,
                       lori_error *err)
{
    *out = NULL;
    base_str json = {0};
    lori_report *report = base_alloc(1, sizeof *report);
    if (facts) {
        format_json_text(facts, FORMAT_JSON_INDENT, &json);
        base_str_puts(&json, "\n");
    }
    bool bad = !report || !facts || json.failed || text->failed;
    json_decref(facts);
    if (bad) {
        free(report);
        base_str_free(&json);
        base_str_free(text);
        return base_no_memory(err, sizeof *report);
    }
    base_str_puts(text, "");
    report->json = base_str_take(&json);
    report->text = base_str_take(text);
    if (!report->json || !report->text) {
        job_report_free(report);
        return base_no_memory(err, 1);
    }
    *out = report;
    return LORI_OK;
}

const char *job_report_json(const lori_report *report)
{
    return report->json;
}

const char *job_report_text(const lori_report *report)
{
    return report->text;
}

void job_report_free(lori_report *report)
{
    if (!report)
        return;
    free(report->json);
    free(report->text);
    free(report);
}

lori_status job_need(const char *value, const char *what, lori_error *err)
{
    if (value && *value)
        return LORI_OK;
    return base_fail(err, LORI_INVALID, "%s is required", what);
}

base_dtype job_dtype(lori_dtype dtype, base_dtype otherwise)
{
    switch (dtype) {
    case LORI_DTYPE_BF16:
        return BASE_BF16;
    case LORI_DTYPE_F32:
        return BASE_F32;
    case LORI_DTYPE_DEFAULT:
        break;
    }
    return otherwise;
}

lori_status job_write_json(const char *folder, const char *name,
                           const json_t *value, unsigned flags, bool newline,
                           lori_error *err)
{
    char *path = base_path_join(folder, name);
    lori_status st = path ? format_json_write(path, value, flags, newline, err)
                          : base_no_memory(err, 1);
    free(path);
    return st;
}
