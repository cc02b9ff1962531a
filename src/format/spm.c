/* spm.c - a SentencePiece model (tokenizer.model): the pieces and the options
 * that decide how it encodes. Protocol buffers, wire format only; unknown
 * fields are skipped, groups refused. Includes base.
 * Source: sentencepiece_model.proto; protobuf.dev, "Encoding". */
#include <stdlib.h>

#include "format/format.h"

#define SPM_MAX_FILE   ((size_t)1 << 28)
#define SPM_MAX_PIECES ((size_t)1 << 21)

/* A message being read: bytes [at, end) of the file. */
typedef struct message {
    const unsigned char *s;
    size_t at, end;
    const char *name;
} message;

typedef struct field {
    uint32_t number;
    unsigned wire;  /* 0 varint, 1 64 bits, 2 bytes, 5 32 bits */
    uint64_t value; /* varint, or the bits */
    message bytes;  /* wire 2 */
} field;

static lori_status bad(const message *m, const char *what, lori_error *err)
{
    return base_fail(err, LORI_FORMAT,
                     "%s: byte %zu: %s; not a SentencePiece model, or damaged",
                     m->name, m->at, what);
}

static lori_status read_varint(message *m, uint64_t *value, lori_error *err)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->at == m->end)
            return bad(m, "the file ends inside a number", err);
        unsigned char byte = m->s[m->at++];
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return LORI_OK;
    }
    return bad(m, "a number of more than 64 bits", err);
}

static lori_status read_bits(message *m, size_t n, uint64_t *value,
                             lori_error *err)
{
    *value = 0;
    if (m->end - m->at < n)
        return bad(m, "the file ends inside a number", err);
    for (size_t i = 0; i < n; i++)
        *value |= (uint64_t)m->s[m->at++] << (8 * i);
    return LORI_OK;
}

static lori_status read_field(message *m, field *f, lori_error *err)
{
    uint64_t key, length;
    *f = (field){0};
    BASE_TRY(read_varint(m, &key, err));
    if (key >> 3 == 0 || key >> 3 > 0x1FFFFFFF)
        return bad(m, "no field has this number", err);
    f->number = (uint32_t)(key >> 3);
    f->wire = (unsigned)(key & 7);
    switch (f->wire) {
    case 0:
        return read_varint(m, &f->value, err);
    case 1:
        return read_bits(m, 8, &f->value, err);
    case 5:
        return read_bits(m, 4, &f->value, err);
    case 2:
        BASE_TRY(read_varint(m, &length, err));
        if (length > m->end - m->at)
            return bad(m, "a field is longer than the file", err);
        f->bytes = *m;
        f->bytes.end = m->at + (size_t)length;
        m->at += (size_t)length;
        return LORI_OK;
    default:
        return bad(m, "a field of an unknown kind", err);
    }
}

/* A field that must have one wire type. */
static lori_status expect(const message *m, const field *f, unsigned wire,
                          lori_error *err)
{
    return f->wire == wire ? LORI_OK : bad(m, "a field of the wrong kind", err);
}

static lori_status read_piece(message m, format_spm_piece *piece,
                              lori_error *err)
{
    *piece = (format_spm_piece){.text = "", .type = 1};
    while (m.at < m.end) {
        field f;
        BASE_TRY(read_field(&m, &f, err));
        if (f.number == 1) {
            BASE_TRY(expect(&m, &f, 2, err));
            piece->text = (const char *)m.s + f.bytes.at;
            piece->n = f.bytes.end - f.bytes.at;
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            BASE_TRY(expect(&m, &f, 5, err));
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (f.number == 3) {
            BASE_TRY(expect(&m, &f, 0, err));
            if (f.value < 1 || f.value > 6)
                return bad(&m, "a piece of an unknown type", err);
            piece->type = (int)f.value;
        }
    }
    if (base_utf8_valid(piece->text, piece->n) != piece->n)
        return bad(&m, "a piece is not UTF-8", err);
    return LORI_OK;
}

/* Numbers of a message by field; other fields are skipped. */
typedef struct known_field {
    uint32_t number;
    int64_t *to;
} known_field;

static lori_status read_numbers(message m, const known_field *known, size_t n,
                                lori_error *err)
{
    while (m.at < m.end) {
        field f;
        BASE_TRY(read_field(&m, &f, err));
        for (size_t i = 0; i < n; i++) {
            if (known[i].number != f.number)
                continue;
            BASE_TRY(expect(&m, &f, 0, err));
            *known[i].to = (int64_t)f.value;
        }
    }
    return LORI_OK;
}

static lori_status read_trainer(message m, format_spm *out, lori_error *err)
{
    const known_field known[] = {{3, &out->model_type},
                                 {24, &out->whitespace_as_suffix},
                                 {35, &out->byte_fallback},
                                 {40, &out->unk},
                                 {41, &out->bos},
                                 {42, &out->eos},
                                 {43, &out->pad}};
    return read_numbers(m, known, sizeof known / sizeof *known, err);
}

static lori_status read_normalizer(message m, format_spm *out, lori_error *err)
{
    const known_field known[] = {{3, &out->add_dummy_prefix},
                                 {4, &out->remove_extra_whitespaces},
                                 {5, &out->escape_whitespaces}};
    message again = m;
    BASE_TRY(read_numbers(m, known, sizeof known / sizeof *known, err));
    while (again.at < again.end) {
        field f;
        BASE_TRY(read_field(&again, &f, err));
        if (f.number == 2 && f.wire == 2 && f.bytes.at < f.bytes.end)
            out->has_charsmap = true;
    }
    return LORI_OK;
}

static lori_status add_piece(format_spm *out, size_t *cap, message m,
                             lori_error *err)
{
    if (out->n == *cap) {
        size_t grown = *cap ? 2 * *cap : 1024;
        if (out->n >= SPM_MAX_PIECES)
            return bad(&m, "too many pieces", err);
        format_spm_piece *piece = base_resize(out->piece, grown, sizeof *piece);
        if (!piece)
            return base_no_memory(err, grown * sizeof *piece);
        out->piece = piece;
        *cap = grown;
    }
    BASE_TRY(read_piece(m, &out->piece[out->n], err));
    out->n++;
    return LORI_OK;
}

static lori_status read_model(message m, format_spm *out, lori_error *err)
{
    size_t cap = 0;
    while (m.at < m.end) {
        field f;
        BASE_TRY(read_field(&m, &f, err));
        if (f.number > 3)
            continue;
        BASE_TRY(expect(&m, &f, 2, err));
        if (f.number == 1)
            BASE_TRY(add_piece(out, &cap, f.bytes, err));
        else if (f.number == 2)
            BASE_TRY(read_trainer(f.bytes, out, err));
        else
            BASE_TRY(read_normalizer(f.bytes, out, err));
    }
    return out->n ? LORI_OK : bad(&m, "no pieces", err);
}

lori_status format_spm_parse(const char *bytes, size_t n, const char *name,
                             format_spm *out, lori_error *err)
{
    *out = (format_spm){.model_type = 1,
                        .add_dummy_prefix = 1,
                        .remove_extra_whitespaces = 1,
                        .escape_whitespaces = 1,
                        .bos = 1,
                        .eos = 2,
                        .pad = -1};
    message m = {.s = (const unsigned char *)bytes, .end = n, .name = name};
    lori_status st = read_model(m, out, err);
    if (st != LORI_OK)
        format_spm_free(out);
    return st;
}

lori_status format_spm_open(const char *path, format_spm *out, lori_error *err)
{
    char *bytes;
    size_t n;
    *out = (format_spm){0};
    BASE_TRY(base_file_read(path, SPM_MAX_FILE, &bytes, &n, err));
    lori_status st = format_spm_parse(bytes, n, path, out, err);
    if (st == LORI_OK)
        out->bytes = bytes;
    else
        free(bytes);
    return st;
}

void format_spm_free(format_spm *spm)
{
    free(spm->piece);
    free(spm->bytes);
    *spm = (format_spm){0};
}
