/* pull.c - models and adapters by name: reading an adapter from wherever its
 * name leads, and downloading into the local cache. */
#include "job/job_i.h"

#include <stdlib.h>

lori_status job_read_adapter(const char *hub_cache, const char *name,
                             adapter **out, lori_error *err)
{
    *out = NULL;
    char *folder = NULL;
    BASE_TRY(hub_find(hub_cache, name, HUB_WEIGHTS, &folder, err));
    lori_status st = adapter_read(folder, out, err);
    free(folder);
    return st;
}

lori_status job_pull(const lori_pull_options *o, const lori_ui *ui,
                     lori_report **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(job_need(o->name, "a name: org/name", err));
    BASE_TRY(job_need(o->hub_cache, "a cache folder", err));
    hub_pull_options pull = {.name = o->name,
                             .revision = o->revision,
                             .cache = o->hub_cache,
                             .endpoint = o->endpoint ? o->endpoint
                                                     : "https://huggingface.co",
                             .token = o->token,
                             .include = o->include,
                             .n_include = o->n_include,
                             .exclude = o->exclude,
                             .n_exclude = o->n_exclude};
    hub_pull_result r = {0};
    BASE_TRY(hub_pull(&pull, ui, &r, err));
    char all[32], now[32];
    base_str text = {0};
    base_str_printf(&text, "%s: %lld file%s, %s (%s downloaded)\n  %s\n",
                    o->name, (long long)r.files, r.files == 1 ? "" : "s",
                    base_human_bytes((double)r.bytes, all, sizeof all),
                    base_human_bytes((double)r.pulled_bytes, now, sizeof now),
                    r.folder);
    json_t *facts = json_pack("{sssssssIsIsI}", "name", o->name, "commit",
                              r.commit, "folder", r.folder, "files",
                              (json_int_t)r.files, "bytes", (json_int_t)r.bytes,
                              "downloaded_bytes", (json_int_t)r.pulled_bytes);
    free(r.folder);
    return report_new(facts, &text, out, err);
}
