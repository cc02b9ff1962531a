/* memory_file.h - bytes as a file with a path, without a disk. */
#ifndef TESTS_FUZZ_MEMORY_FILE_H
#define TESTS_FUZZ_MEMORY_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/fuzz.h"

/* The descriptor, to close(); `path` opens it. */
static inline int memory_file(const uint8_t *data, size_t n, char path[64])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    while (n) {
        ssize_t put = write(fd, data, n);
        FUZZ_CHECK(put > 0);
        data += put;
        n -= (size_t)put;
    }
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
