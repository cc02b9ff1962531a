/* hub_pull_none.c - the build without libcurl and OpenSSL: models of the local
 * cache are found, but nothing can be downloaded. */
#include "hub/hub_i.h"

const char *hub_http_library(void)
{
    return NULL;
}

lori_status hub_pull(const hub_pull_options *options, const lori_ui *ui,
                     hub_pull_result *out, lori_error *err)
{
    (void)ui;
    *out = (hub_pull_result){0};
    return base_fail(err, LORI_UNSUPPORTED,
                     "'%s' cannot be downloaded: this build has no libcurl and "
                     "OpenSSL; run `make deps` and build again, or fill the "
                     "cache with `hf download %s`",
                     options->name, options->name);
}
