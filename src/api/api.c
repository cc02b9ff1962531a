/* api.c - the public interface: each function hands over to its job. The only
 * file whose symbols are visible outside the library. */
#include "lori.h"

#include "base/base.h"
#include "job/job.h"

const char *lori_version(void)
{
    return LORI_VERSION;
}

const char *lori_status_text(lori_status status)
{
    switch (status) {
#define API_TEXT(name, value, text)                                            \
    case LORI_##name:                                                          \
        return text;
        LORI_STATUS_LIST(API_TEXT)
#undef API_TEXT
    }
    return "unknown status";
}

const char *lori_nearest(const char *word, const char *const *candidates,
                         int64_t n)
{
    return base_nearest(word, candidates, (size_t)n);
}

const char *lori_report_json(const lori_report *report)
{
    return job_report_json(report);
}

const char *lori_report_text(const lori_report *report)
{
    return job_report_text(report);
}

void lori_report_free(lori_report *report)
{
    job_report_free(report);
}

lori_status lori_inspect(const lori_inspect_options *options, lori_report **out,
                         lori_error *err)
{
    return job_inspect(options, out, err);
}

lori_status lori_env(const char *isa, lori_report **out, lori_error *err)
{
    return job_env(isa, out, err);
}

lori_status lori_pull(const lori_pull_options *options, const lori_ui *ui,
                      lori_report **out, lori_error *err)
{
    return job_pull(options, ui, out, err);
}

lori_status lori_import(const lori_import_options *options, const lori_ui *ui,
                        lori_report **out, lori_error *err)
{
    return job_import(options, ui, out, err);
}

lori_status lori_merge(const lori_merge_options *options, const lori_ui *ui,
                       lori_report **out, lori_error *err)
{
    return job_merge(options, ui, out, err);
}

lori_status lori_train(const lori_train_options *options, const lori_ui *ui,
                       lori_report **out, lori_error *err)
{
    return job_train(options, ui, out, err);
}

lori_status lori_train_keys(lori_report **out, lori_error *err)
{
    return job_train_keys(out, err);
}

lori_status lori_mask(const lori_mask_options *options, const lori_ui *ui,
                      lori_report **out, lori_error *err)
{
    return job_mask(options, ui, out, err);
}

lori_status lori_tokenize(const lori_tokenize_options *options,
                          const lori_ui *ui, lori_report **out, lori_error *err)
{
    return job_tokenize(options, ui, out, err);
}

lori_status lori_detokenize(const lori_detokenize_options *options,
                            lori_report **out, lori_error *err)
{
    return job_detokenize(options, out, err);
}

lori_status lori_session_open(const lori_session_options *options,
                              const lori_ui *ui, lori_session **out,
                              lori_error *err)
{
    return job_session_open(options, ui, out, err);
}

void lori_session_close(lori_session *session)
{
    job_session_close(session);
}

lori_status lori_session_add_adapter(lori_session *session, const char *name,
                                     const char *folder, const lori_ui *ui,
                                     lori_error *err)
{
    return job_session_add_adapter(session, name, folder, ui, err);
}

const char *lori_session_adapter_name(const lori_session *session,
                                      int64_t index)
{
    return job_session_adapter_name(session, index);
}

int64_t lori_session_context(const lori_session *session)
{
    return job_session_context(session);
}

lori_status lori_generate(lori_session *session,
                          const lori_generate_options *options,
                          const lori_stream *stream, const lori_ui *ui,
                          lori_report **out, lori_error *err)
{
    return job_generate(session, options, stream, ui, out, err);
}

lori_status lori_generate_many(lori_session *session,
                               const lori_generate_options *options, int64_t n,
                               const lori_stream *stream, const lori_ui *ui,
                               lori_report **reports, lori_error *err)
{
    return job_generate_many(session, options, n, stream, ui, reports, err);
}

lori_status lori_generate_file(lori_session *session,
                               const lori_generate_file_options *options,
                               const lori_ui *ui, lori_report **out,
                               lori_error *err)
{
    return job_generate_file(session, options, ui, out, err);
}

lori_status lori_count_tokens(lori_session *session,
                              const lori_generate_options *options,
                              int64_t *out, lori_error *err)
{
    return job_count_tokens(session, options, out, err);
}

lori_status lori_score(lori_session *session, const lori_score_options *options,
                       const lori_ui *ui, lori_report **out, lori_error *err)
{
    return job_score(session, options, ui, out, err);
}

lori_status lori_eval(const lori_eval_options *options, const lori_ui *ui,
                      lori_report **out, lori_error *err)
{
    return job_eval(options, ui, out, err);
}

lori_status lori_eval_presets(const char *name, lori_report **out,
                              lori_error *err)
{
    return job_eval_presets(name, out, err);
}

lori_status lori_run(const lori_run_options *options, const lori_ui *ui,
                     lori_report **out, lori_error *err)
{
    return job_run(options, ui, out, err);
}
