/* test_file.c - files and folders that appear whole or not at all. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

static char dir[512], path_text[1024];

static void start(void)
{
    const char *root = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/lori-test-XXXXXX",
             root && *root ? root : P_tmpdir);
    cr_assert_not_null(mkdtemp(dir));
}

static int remove_entry(const char *p, const struct stat *st, int type,
                        struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(p);
}

static void stop(void)
{
    nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(file, .init = start, .fini = stop);
TestSuite(folder, .init = start, .fini = stop);

static const char *in(const char *name)
{
    snprintf(path_text, sizeof path_text, "%s/%s", dir, name);
    return path_text;
}

static void plain(const char *name, const char *text)
{
    FILE *f = fopen(in(name), "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static int entries(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void expect_text(const char *name, const char *text)
{
    char *bytes;
    size_t n;
    lori_error err;
    cr_assert_eq(base_file_read(in(name), 1 << 20, &bytes, &n, &err), LORI_OK,
                 "%s", err.message);
    cr_expect_str_eq(bytes, text);
    cr_expect_eq(n, strlen(text));
    free(bytes);
}

Test(file, paths)
{
    char *p = base_path_join("a", "b");
    cr_expect_str_eq(p, "a/b");
    free(p);
    p = base_path_join("/", "b");
    cr_expect_str_eq(p, "/b");
    free(p);
    p = base_path_join("", "b");
    cr_expect_str_eq(p, "b");
    free(p);
    cr_expect_str_eq(base_path_name("a/b"), "b");
    cr_expect_str_eq(base_path_name("b"), "b");
    cr_expect(base_is_dir(dir) && !base_is_file(dir));
    plain("x", "");
    cr_expect(!base_is_dir(in("x")) && base_is_file(in("x")));
}

Test(file, read_is_bounded)
{
    char *bytes;
    size_t n;
    lori_error err;
    plain("x", "12345");
    cr_expect_eq(base_file_read(in("x"), 5, &bytes, &n, &err), LORI_OK);
    cr_expect_str_eq(bytes, "12345");
    free(bytes);
    cr_expect_eq(base_file_read(in("x"), 4, &bytes, &n, &err),
                 LORI_UNSUPPORTED);
    cr_expect(bytes == NULL && n == 0);
    cr_expect_eq(base_file_read(in("none"), 4, &bytes, &n, &err),
                 LORI_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "none"));
    cr_expect_eq(base_file_read(dir, 4, &bytes, &n, &err), LORI_IO);
    /* No size beforehand, and larger than the first buffer. */
    cr_assert_eq(base_file_read("/proc/self/smaps", 1 << 24, &bytes, &n, &err),
                 LORI_OK);
    cr_expect(n > 4096 && strlen(bytes) == n);
    free(bytes);
    cr_expect_eq(base_file_read("/proc/self/smaps", 5000, &bytes, &n, &err),
                 LORI_UNSUPPORTED);
}

Test(file, map)
{
    base_map map;
    lori_error err;
    plain("x", "12345");
    cr_assert_eq(base_map_open(in("x"), &map, &err), LORI_OK);
    cr_expect(map.bytes == 5 && memcmp(map.data, "12345", 5) == 0);
    base_map_close(&map);
    base_map_close(&map);
    plain("x", "");
    cr_assert_eq(base_map_open(in("x"), &map, &err), LORI_OK);
    cr_expect(map.data == NULL && map.bytes == 0);
    base_map_close(&map);
    cr_expect_eq(base_map_open(dir, &map, &err), LORI_IO);
    cr_expect_eq(base_map_open(in("y"), &map, &err), LORI_NOT_FOUND);
}

Test(file, appears_on_commit_only)
{
    base_out *out;
    lori_error err;
    plain("x", "old");
    umask(027);
    cr_assert_eq(base_out_open(in("x"), &out, &err), LORI_OK);
    cr_assert_eq(base_out_write(out, "new", 3, &err), LORI_OK);
    expect_text("x", "old");
    base_out_abort(out);
    expect_text("x", "old");
    cr_expect_eq(entries(), 1);
    cr_assert_eq(base_out_open(in("x"), &out, &err), LORI_OK);
    cr_assert_eq(base_out_write(out, "new", 3, &err), LORI_OK);
    cr_assert_eq(base_out_commit(out, &err), LORI_OK);
    expect_text("x", "new");
    cr_expect_eq(entries(), 1);
    struct stat st;
    cr_assert_eq(stat(in("x"), &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0640);
    base_out_abort(NULL);
}

/* Pieces around the buffer's size arrive in order. */
Test(file, writes_of_all_sizes)
{
    static unsigned char data[400000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 31 >> 3);
    static const size_t sizes[] = {1, 65535, 1, 65536, 7, 65537, 100000, 0, 9};
    base_out *out;
    lori_error err;
    cr_assert_eq(base_out_open(in("x"), &out, &err), LORI_OK);
    size_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; at += sizes[i++])
        cr_assert_eq(base_out_write(out, data + at, sizes[i], &err), LORI_OK);
    cr_assert_eq(base_out_commit(out, &err), LORI_OK);
    char *bytes;
    size_t n;
    cr_assert_eq(base_file_read(in("x"), 1 << 20, &bytes, &n, &err), LORI_OK);
    cr_expect_eq(n, at);
    cr_expect_eq(memcmp(bytes, data, at), 0);
    free(bytes);
}

Test(file, failures_leave_nothing)
{
    lori_error err;
    base_out *out;
    cr_expect_eq(base_file_write(in("no/such/x"), "a", 1, &err),
                 LORI_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "no/such/x"));
    mkdir(in("sub"), 0777);
    cr_expect_eq(base_out_open(in("sub"), &out, &err), LORI_IO);
    cr_expect_eq(base_out_open(in("sub/"), &out, &err), LORI_IO);
    cr_expect_null(out);
    /* The place is taken by a folder between open and commit. */
    cr_assert_eq(base_out_open(in("y"), &out, &err), LORI_OK);
    mkdir(in("y"), 0777);
    cr_expect_neq(base_out_commit(out, &err), LORI_OK);
    cr_expect_eq(entries(), 2);
    if (access("/dev/full", W_OK) == 0) {
        int fd = open("/dev/full", O_WRONLY);
        cr_assert_geq(fd, 0);
        cr_assert_eq(base_out_open(in("z"), &out, &err), LORI_OK);
        /* A full disk: the temporary's descriptor is made to point at one. */
        int mine = fd - 1;
        char link[64], target[1100] = "";
        for (mine = 0; mine < 64; mine++) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", mine);
            ssize_t n = readlink(link, target, sizeof target - 1);
            if (n > 0 && (target[n] = '\0', strstr(target, "/z.tmp-")))
                break;
        }
        cr_assert_lt(mine, 64);
        dup2(fd, mine);
        close(fd);
        cr_expect_eq(base_out_write(out, "a", 1, &err), LORI_OK);
        cr_expect_eq(base_out_commit(out, &err), LORI_IO);
        cr_expect_not_null(strstr(err.message, "No space"));
        cr_expect_eq(entries(), 2);
    }
}

Test(folder, mkdirs)
{
    lori_error err;
    cr_assert_eq(base_mkdirs(in("a/b//c/"), &err), LORI_OK);
    cr_expect(base_is_dir(in("a/b/c")));
    cr_assert_eq(base_mkdirs(in("a/b/c"), &err), LORI_OK);
    plain("file", "");
    cr_expect_neq(base_mkdirs(in("file/x"), &err), LORI_OK);
    cr_expect_neq(base_mkdirs(in("file"), &err), LORI_OK);
}

/* Puts marker.json with this text into an output folder. */
static void fill(base_outdir *out, const char *text)
{
    lori_error err;
    char *p = base_path_join(base_outdir_path(out), "marker.json");
    cr_assert_eq(base_file_write(p, text, strlen(text), &err), LORI_OK);
    free(p);
}

Test(folder, new_one)
{
    base_outdir *out;
    lori_error err;
    cr_assert_eq(base_outdir_open(in("p/q/"), false, "marker.json", &out, &err),
                 LORI_OK, "%s", err.message);
    fill(out, "1");
    cr_expect_not(base_is_dir(in("p/q")));
    cr_assert_eq(base_outdir_commit(out, &err), LORI_OK);
    expect_text("p/q/marker.json", "1");
    cr_expect_eq(base_outdir_open(in("p/q"), false, "m", &out, &err), LORI_IO);
    cr_expect_not_null(strstr(err.message, "exists"));
    cr_expect_null(out);
    cr_assert_eq(base_outdir_open(in("r"), false, "m", &out, &err), LORI_OK);
    fill(out, "2");
    base_outdir_abort(out);
    base_outdir_abort(NULL);
    cr_expect_eq(entries(), 1);
}

Test(folder, replaced_whole)
{
    base_outdir *out;
    lori_error err;
    mkdir(in("d"), 0777);
    plain("d/marker.json", "old");
    plain("d/stale", "");
    cr_assert_eq(base_outdir_open(in("d"), true, "marker.json", &out, &err),
                 LORI_OK);
    fill(out, "new");
    expect_text("d/marker.json", "old");
    cr_assert_eq(base_outdir_commit(out, &err), LORI_OK, "%s", err.message);
    expect_text("d/marker.json", "new");
    cr_expect_not(base_is_file(in("d/stale")));
    cr_expect_eq(entries(), 1);
}

Test(folder, what_is_not_ours_stays)
{
    base_outdir *out;
    lori_error err;
    mkdir(in("home"), 0777);
    plain("home/thesis.txt", "years of work");
    cr_expect_eq(base_outdir_open(in("home"), true, "marker.json", &out, &err),
                 LORI_IO);
    cr_expect_not_null(strstr(err.message, "marker.json"));
    plain("file", "x");
    cr_expect_eq(base_outdir_open(in("file"), true, "marker.json", &out, &err),
                 LORI_IO);
    /* Empty is fine; filled meanwhile with something else is not. */
    mkdir(in("e"), 0777);
    cr_assert_eq(base_outdir_open(in("e"), true, "marker.json", &out, &err),
                 LORI_OK);
    plain("e/other", "x");
    cr_expect_eq(base_outdir_commit(out, &err), LORI_IO);
    expect_text("e/other", "x");
    expect_text("home/thesis.txt", "years of work");
    /* Without `replace`, taken meanwhile. */
    cr_assert_eq(base_outdir_open(in("n"), false, "marker.json", &out, &err),
                 LORI_OK);
    mkdir(in("n"), 0777);
    cr_expect_eq(base_outdir_commit(out, &err), LORI_IO);
    cr_expect_eq(entries(), 4);
}

Test(folder, link_keeps_pointing)
{
    base_outdir *out;
    lori_error err;
    mkdir(in("real"), 0777);
    plain("real/marker.json", "old");
    cr_assert_eq(symlink("real", in("link")), 0);
    cr_assert_eq(base_outdir_open(in("link"), true, "marker.json", &out, &err),
                 LORI_OK);
    fill(out, "new");
    cr_assert_eq(base_outdir_commit(out, &err), LORI_OK);
    expect_text("real/marker.json", "new");
    struct stat st;
    cr_assert_eq(lstat(in("link"), &st), 0);
    cr_expect(S_ISLNK(st.st_mode));
}
