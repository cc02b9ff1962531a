/* keep_folder.c - a keep mask as a folder: keep.json (facts) and
 * keep.safetensors (bits; A when it has no seed). Owns both formats. Reading
 * checks every count against the bits.
 *
 * "PATH.keep" U8 [out, (rank + 7) / 8]: bit j % 8 of byte j / 8 of row i is
 * entry (i, j); bits beyond the rank are 0. "PATH.lora_A.weight" F32 [rank,
 * in]. keep.json lists the sites in the adapter's order. */
#include "adapter/adapter_i.h"

#include <stdlib.h>

#define KEEP_FORMAT  "lori-keep"
#define KEEP_VERSION 1
#define KEEP_RANK    65536 /* more is not a low-rank adapter */

static int64_t row_bytes(int64_t rank)
{
    return (rank + 7) / 8;
}

/* ---- writing -------------------------------------------------------- */

/* Bits then, without a seed, A: tensors of the file and their memory. */
typedef struct image {
    format_desc *descs;
    char **names;
    unsigned char **bits;
    size_t n, n_sites;
} image;

static void image_fini(image *im)
{
    for (size_t i = 0; im->names && i < im->n; i++)
        free(im->names[i]);
    for (size_t i = 0; im->bits && i < im->n_sites; i++)
        free(im->bits[i]);
    free(im->names);
    free(im->bits);
    free(im->descs);
}

static lori_status add_tensor(image *im, const char *path, const char *suffix,
                              base_dtype dtype, int64_t rows, int64_t cols,
                              const void *data, lori_error *err)
{
    base_str name = {0};
    base_str_printf(&name, "%s%s", path, suffix);
    im->names[im->n] = base_str_take(&name);
    if (!im->names[im->n])
        return base_no_memory(err, strlen(path));
    im->descs[im->n] = (format_desc){.name = im->names[im->n],
                                     .dtype = dtype,
                                     .n_dims = 2,
                                     .shape = {rows, cols},
                                     .data = data};
    im->n++;
    return LORI_OK;
}

static lori_status image_init(image *im, const adapter_keep *keep,
                              lori_error *err)
{
    size_t sites = (size_t)keep->n_sites, n = sites * 2;
    im->descs = base_alloc(n, sizeof *im->descs);
    im->names = base_alloc(n, sizeof *im->names);
    im->bits = base_alloc(sites, sizeof *im->bits);
    if (!im->descs || !im->names || !im->bits)
        return base_no_memory(err, n * sizeof *im->descs);
    for (int64_t s = 0; s < keep->n_sites; s++) {
        const adapter_keep_site *k = &keep->sites[s];
        int64_t row = row_bytes(k->rank), words = adapter_keep_words(k->rank);
        unsigned char *bits = base_alloc((size_t)(k->out * row), 1);
        if (!bits)
            return base_no_memory(err, (size_t)(k->out * row));
        im->bits[im->n_sites++] = bits;
        for (int64_t i = 0; i < k->out; i++)
            for (int64_t b = 0; b < row; b++)
                bits[i * row + b] =
                    (unsigned char)(k->bits[i * words + b / 4] >> (b % 4 * 8));
        BASE_TRY(
            add_tensor(im, k->path, ".keep", BASE_U8, k->out, row, bits, err));
        if (!keep->a_source)
            continue;
        const adapter_site *a = &keep->a_source->sites[s];
        BASE_TRY(add_tensor(im, a->path, ".lora_A.weight", BASE_F32, a->rank,
                            a->in, a->A, err));
    }
    return LORI_OK;
}

/* keep.json as a value; NULL when out of memory. */
static json_t *facts_of(const adapter_keep *keep)
{
    json_t *o = json_object(), *sites = json_array();
    int bad = !o || !sites;
    for (int64_t s = 0; !bad && s < keep->n_sites; s++) {
        const adapter_keep_site *k = &keep->sites[s];
        json_t *one = json_object();
        bad |= json_object_set_new(one, "path", json_string(k->path));
        bad |= json_object_set_new(one, "out", json_integer(k->out));
        bad |= json_object_set_new(one, "in", json_integer(k->in));
        bad |= json_object_set_new(one, "rank", json_integer(k->rank));
        bad |= json_object_set_new(one, "kept", json_integer(k->kept));
        if (keep->a_source)
            bad |= json_object_set_new(
                one, "alpha", json_real(keep->a_source->sites[s].alpha));
        bad |= json_array_append_new(sites, one);
    }
    bad |= json_object_set_new(o, "sites", sites);
    bad |= json_object_set_new(o, "format", json_string(KEEP_FORMAT));
    bad |= json_object_set_new(o, "version", json_integer(KEEP_VERSION));
    bad |= json_object_set_new(o, "base_model_name_or_path",
                               keep->base_model ? json_string(keep->base_model)
                                                : json_null());
    bad |= json_object_set_new(o, "sparsity", json_real(keep->sparsity));
    bad |= json_object_set_new(o, "total", json_integer(keep->total));
    bad |= json_object_set_new(o, "kept", json_integer(keep->kept));
    bad |= adapter_origin_write(o, &keep->origin);
    if (keep->a_source)
        bad |= json_object_set_new(o, "use_rslora",
                                   json_boolean(keep->a_source->use_rslora));
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static lori_status write_files(const adapter_keep *keep, const char *folder,
                               lori_error *err)
{
    image im = {0};
    char *bits = base_path_join(folder, ADAPTER_KEEP_BITS_FILE);
    char *facts = base_path_join(folder, ADAPTER_KEEP_FILE);
    json_t *o = facts_of(keep);
    lori_status st = bits && facts && o ? image_init(&im, keep, err)
                                        : base_no_memory(err, 4096);
    const format_pair meta = {"format", "pt"};
    if (st == LORI_OK)
        st = format_st_write(bits, im.descs, im.n, &meta, 1, err);
    if (st == LORI_OK)
        st = format_json_write(
            facts, o, FORMAT_JSON_SORT | FORMAT_JSON_INDENT | FORMAT_JSON_ASCII,
            true, err);
    json_decref(o);
    free(bits);
    free(facts);
    image_fini(&im);
    return st;
}

lori_status adapter_keep_write(const adapter_keep *keep, const char *folder,
                               bool replace, lori_error *err)
{
    base_outdir *dir = NULL;
    BASE_TRY(base_outdir_open(folder, replace, ADAPTER_KEEP_FILE, &dir, err));
    lori_status st = write_files(keep, base_outdir_path(dir), err);
    if (st != LORI_OK) {
        base_outdir_abort(dir);
        return st;
    }
    return base_outdir_commit(dir, err);
}

/* ---- reading -------------------------------------------------------- */

typedef struct reader {
    char *facts_file, *bits_file;
    json_t *root;
    format_store *store;
    size_t used; /* tensors that belong to a site */
    adapter_keep *keep;
} reader;

/* Tensor `path``suffix` with exactly this shape. */
static lori_status find_tensor(reader *r, const char *path, const char *suffix,
                               base_dtype dtype, int64_t rows, int64_t cols,
                               const format_tensor **out, lori_error *err)
{
    base_str name = {0};
    base_str_printf(&name, "%s%s", path, suffix);
    if (name.failed)
        return base_no_memory(err, strlen(path));
    const format_tensor *t = format_store_find(r->store, name.s);
    lori_status st = LORI_OK;
    if (!t)
        st = base_fail(err, LORI_NOT_FOUND, "%s: tensor '%s' is missing",
                       r->bits_file, name.s);
    else if (t->dtype != dtype || t->n_dims != 2 || t->shape[0] != rows ||
             t->shape[1] != cols)
        st = base_fail(err, LORI_FORMAT,
                       "%s: tensor '%s' is not %s [%lld, %lld] as %s says",
                       r->bits_file, name.s, base_dtype_name(dtype),
                       (long long)rows, (long long)cols, r->facts_file);
    base_str_free(&name);
    r->used++;
    *out = t;
    return st;
}

/* One entry of "sites"; path and numbers only. */
static lori_status read_site(const reader *r, const json_t *one, bool with_a,
                             adapter_keep_site *k, double *alpha,
                             lori_error *err)
{
    const char *path = NULL, *file = r->facts_file;
    if (!json_is_object(one))
        return base_fail(err, LORI_FORMAT,
                         "%s: an entry of 'sites' is not an "
                         "object",
                         file);
    BASE_TRY(format_get_str(one, file, "path", true, &path, err));
    BASE_TRY(
        format_get_i64(one, file, "out", true, 1, INT32_MAX, &k->out, err));
    BASE_TRY(format_get_i64(one, file, "in", true, 1, INT32_MAX, &k->in, err));
    BASE_TRY(
        format_get_i64(one, file, "rank", true, 1, KEEP_RANK, &k->rank, err));
    BASE_TRY(format_get_i64(one, file, "kept", true, 0, k->out * k->rank,
                            &k->kept, err));
    if (with_a)
        BASE_TRY(format_get_f64(one, file, "alpha", true, alpha, err));
    k->path = base_strdup(path);
    return k->path ? LORI_OK : base_no_memory(err, strlen(path));
}

static lori_status read_bits(reader *r, adapter_keep_site *k, lori_error *err)
{
    const format_tensor *t = NULL;
    int64_t row = row_bytes(k->rank), words = adapter_keep_words(k->rank);
    BASE_TRY(find_tensor(r, k->path, ".keep", BASE_U8, k->out, row, &t, err));
    k->bits = base_alloc((size_t)(k->out * words), sizeof *k->bits);
    if (!k->bits)
        return base_no_memory(err, (size_t)(k->out * words) * sizeof *k->bits);
    const unsigned char *bytes = t->data;
    unsigned spare = (unsigned)(row * 8 - k->rank); /* 0..7 */
    int64_t count = 0;
    for (int64_t i = 0; i < k->out; i++) {
        for (int64_t b = 0; b < row; b++) {
            uint32_t byte = bytes[i * row + b];
            k->bits[i * words + b / 4] |= byte << (b % 4 * 8);
            count += __builtin_popcount(byte);
        }
        if ((unsigned)bytes[i * row + row - 1] >> (8 - spare))
            return base_fail(err, LORI_FORMAT,
                             "%s: tensor '%s': row %lld has bits beyond rank "
                             "%lld",
                             r->bits_file, t->name, (long long)i,
                             (long long)k->rank);
    }
    if (count != k->kept)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' keeps %lld entries, %s says %lld",
                         r->bits_file, t->name, (long long)count, r->facts_file,
                         (long long)k->kept);
    return LORI_OK;
}

static lori_status read_sites(reader *r, double *alphas, lori_error *err)
{
    adapter_keep *keep = r->keep;
    const json_t *sites = json_object_get(r->root, "sites");
    size_t i;
    json_t *one;
    int64_t total = 0, kept = 0;
    json_array_foreach(sites, i, one)
    {
        adapter_keep_site *k = &keep->sites[keep->n_sites++];
        BASE_TRY(read_site(r, one, !keep->origin.has_seed, k, &alphas[i], err));
        if (i > 0 && adapter_path_order(k[-1].path, k->path) >= 0)
            return base_fail(err, LORI_FORMAT,
                             "%s: site '%s' is out of order or named twice",
                             r->facts_file, k->path);
        BASE_TRY(read_bits(r, k, err));
        total += k->out * k->rank;
        kept += k->kept;
    }
    if (total != keep->total || kept != keep->kept)
        return base_fail(err, LORI_FORMAT,
                         "%s: %lld of %lld entries kept, but its sites add up "
                         "to %lld of %lld",
                         r->facts_file, (long long)keep->kept,
                         (long long)keep->total, (long long)kept,
                         (long long)total);
    return LORI_OK;
}

/* A of every site, for a mask whose adapter had no seed. */
static lori_status read_a(reader *r, const double *alphas, lori_error *err)
{
    adapter_keep *keep = r->keep;
    bool rslora = false;
    BASE_TRY(format_get_bool(r->root, r->facts_file, "use_rslora", false,
                             &rslora, err));
    adapter_site_spec *specs = base_alloc((size_t)keep->n_sites, sizeof *specs);
    const format_tensor **a = base_alloc((size_t)keep->n_sites, sizeof *a);
    lori_status st = specs && a ? LORI_OK : base_no_memory(err, 4096);
    /* All shapes are checked against the file before memory is taken. */
    for (int64_t s = 0; st == LORI_OK && s < keep->n_sites; s++) {
        const adapter_keep_site *k = &keep->sites[s];
        specs[s] =
            (adapter_site_spec){k->path, k->in, k->out, k->rank, alphas[s]};
        st = find_tensor(r, k->path, ".lora_A.weight", BASE_F32, k->rank, k->in,
                         &a[s], err);
    }
    if (st == LORI_OK)
        st = adapter_new(specs, keep->n_sites, rslora, &keep->a_source, err);
    for (int64_t s = 0; st == LORI_OK && s < keep->n_sites; s++) {
        adapter_site *site = &keep->a_source->sites[s];
        memcpy(site->A, a[s]->data, a[s]->bytes);
        st = adapter_check_finite(site->A, site->rank * site->in, r->bits_file,
                                  a[s]->name, err);
    }
    free(a);
    free(specs);
    return st;
}

static lori_status read_header(reader *r, lori_error *err)
{
    const char *file = r->facts_file, *format = NULL, *base = NULL;
    adapter_keep *keep = r->keep;
    int64_t version = 0;
    if (!json_is_object(r->root))
        return base_fail(err, LORI_FORMAT, "%s: not a JSON object", file);
    BASE_TRY(format_get_str(r->root, file, "format", true, &format, err));
    if (strcmp(format, KEEP_FORMAT) != 0)
        return base_fail(err, LORI_FORMAT, "%s: format is '%s', expected '%s'",
                         file, format, KEEP_FORMAT);
    BASE_TRY(format_get_i64(r->root, file, "version", true, 1, 1 << 20,
                            &version, err));
    if (version != KEEP_VERSION)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: version %lld was written by a newer lori", file,
                         (long long)version);
    BASE_TRY(
        format_get_f64(r->root, file, "sparsity", true, &keep->sparsity, err));
    if (!(keep->sparsity >= 0 && keep->sparsity < 1))
        return base_fail(err, LORI_FORMAT, "%s: sparsity %g is not in [0, 1)",
                         file, keep->sparsity);
    BASE_TRY(format_get_i64(r->root, file, "total", true, 1, INT64_MAX,
                            &keep->total, err));
    BASE_TRY(format_get_i64(r->root, file, "kept", true, 1, INT64_MAX,
                            &keep->kept, err));
    BASE_TRY(format_get_str(r->root, file, "base_model_name_or_path", false,
                            &base, err));
    if (base && !(keep->base_model = base_strdup(base)))
        return base_no_memory(err, strlen(base));
    const json_t *sites = json_object_get(r->root, "sites");
    if (!json_is_array(sites) || json_array_size(sites) == 0)
        return base_fail(err, LORI_FORMAT,
                         "%s: 'sites' is not a list with entries", file);
    return adapter_origin_read(r->root, file, &keep->origin, err);
}

static lori_status read_folder(reader *r, lori_error *err)
{
    if (!base_is_file(r->facts_file))
        return base_fail(
            err, LORI_NOT_FOUND,
            "%s: no such file; a mask is a folder that `lori mask` "
            "writes",
            r->facts_file);
    BASE_TRY(format_json_load(r->facts_file, &r->root, err));
    BASE_TRY(read_header(r, err));
    BASE_TRY(format_store_open_file(r->bits_file, &r->store, err));
    size_t n = json_array_size(json_object_get(r->root, "sites"));
    r->keep->sites = base_alloc(n, sizeof *r->keep->sites);
    double *alphas = base_alloc(n, sizeof *alphas);
    lori_status st = r->keep->sites && alphas ? read_sites(r, alphas, err)
                                              : base_no_memory(err, n * 64);
    if (st == LORI_OK && !r->keep->origin.has_seed)
        st = read_a(r, alphas, err);
    free(alphas);
    if (st == LORI_OK && r->used != format_store_count(r->store))
        st = base_fail(err, LORI_FORMAT,
                       "%s: %zu tensors, but %s describes %zu", r->bits_file,
                       format_store_count(r->store), r->facts_file, r->used);
    return st;
}

lori_status adapter_keep_read(const char *folder, adapter_keep **out,
                              lori_error *err)
{
    *out = NULL;
    reader r = {.facts_file = base_path_join(folder, ADAPTER_KEEP_FILE),
                .bits_file = base_path_join(folder, ADAPTER_KEEP_BITS_FILE),
                .keep = base_alloc(1, sizeof *r.keep)};
    lori_status st = r.facts_file && r.bits_file && r.keep
                         ? read_folder(&r, err)
                         : base_no_memory(err, sizeof *r.keep);
    if (st == LORI_OK)
        *out = r.keep;
    else
        adapter_keep_free(r.keep);
    format_store_close(r.store);
    json_decref(r.root);
    free(r.facts_file);
    free(r.bits_file);
    return st;
}
