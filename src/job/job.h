/* job.h - whole jobs made of rooms: import, train, mask, merge, merge into a
 * base, generate, score, evaluate, inspect. Options and reports are the public
 * ones, so this room alone may include lori.h beside api/ and cli/; each job_*
 * does what the lori_* of the same name promises there. */
#ifndef JOB_JOB_H
#define JOB_JOB_H

#include "base/base.h"
#include "lori.h"

lori_status job_inspect(const lori_inspect_options *options, lori_report **out,
                        lori_error *err);
lori_status job_env(const char *isa, lori_report **out, lori_error *err);
lori_status job_pull(const lori_pull_options *options, const lori_ui *ui,
                     lori_report **out, lori_error *err);
lori_status job_import(const lori_import_options *options, const lori_ui *ui,
                       lori_report **out, lori_error *err);
lori_status job_merge(const lori_merge_options *options, const lori_ui *ui,
                      lori_report **out, lori_error *err);
lori_status job_train(const lori_train_options *options, const lori_ui *ui,
                      lori_report **out, lori_error *err);
lori_status job_train_keys(lori_report **out, lori_error *err);
lori_status job_mask(const lori_mask_options *options, const lori_ui *ui,
                     lori_report **out, lori_error *err);

lori_status job_tokenize(const lori_tokenize_options *options,
                         const lori_ui *ui, lori_report **out, lori_error *err);
lori_status job_detokenize(const lori_detokenize_options *options,
                           lori_report **out, lori_error *err);

lori_status job_session_open(const lori_session_options *options,
                             const lori_ui *ui, lori_session **out,
                             lori_error *err);
void job_session_close(lori_session *session);
lori_status job_session_add_adapter(lori_session *session, const char *name,
                                    const char *folder, const lori_ui *ui,
                                    lori_error *err);
const char *job_session_adapter_name(const lori_session *session,
                                     int64_t index);
int64_t job_session_context(const lori_session *session);
lori_status job_generate(lori_session *session,
                         const lori_generate_options *options,
                         const lori_stream *stream, const lori_ui *ui,
                         lori_report **out, lori_error *err);
lori_status job_generate_many(lori_session *session,
                              const lori_generate_options *options, int64_t n,
                              const lori_stream *stream, const lori_ui *ui,
                              lori_report **reports, lori_error *err);
lori_status job_generate_file(lori_session *session,
                              const lori_generate_file_options *options,
                              const lori_ui *ui, lori_report **out,
                              lori_error *err);
lori_status job_count_tokens(lori_session *session,
                             const lori_generate_options *options, int64_t *out,
                             lori_error *err);
lori_status job_score(lori_session *session, const lori_score_options *options,
                      const lori_ui *ui, lori_report **out, lori_error *err);

lori_status job_eval(const lori_eval_options *options, const lori_ui *ui,
                     lori_report **out, lori_error *err);
lori_status job_run(const lori_run_options *options, const lori_ui *ui,
                    lori_report **out, lori_error *err);
lori_status job_eval_presets(const char *name, lori_report **out,
                             lori_error *err);

const char *job_report_json(const lori_report *report);
const char *job_report_text(const lori_report *report);
void job_report_free(lori_report *report);

#endif
