/* cuda_none.c - the build without CUDA: the backend has a name, but cannot be
 * opened. */
#include "backend/backend.h"

lori_status backend_cuda_open(const backend_options *options, backend **out,
                              lori_error *err)
{
    (void)options;
    *out = NULL;
    return base_fail(err, LORI_UNSUPPORTED,
                     "backend 'cuda' was not built in: build where nvcc is "
                     "found, or use backend cpu");
}
