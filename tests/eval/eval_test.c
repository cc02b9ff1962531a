/* eval_test.c - the helpers of eval_test.h, and the tiny models for this
 * binary. */
#include "eval_test.h"

#include "model/tiny_model.c"

temp here;

void here_begin(void)
{
    temp_open(&here);
    cr_assert_eq(chdir(here.dir), 0);
}

void here_end(void)
{
    cr_assert_eq(chdir("/"), 0);
    temp_close(&here);
}

void put(const char *path, const char *text)
{
    ok(base_file_write(path, text, strlen(text), err));
}

char *slurp(const char *path)
{
    char *bytes = NULL;
    size_t n = 0;
    ok(base_file_read(path, 1 << 24, &bytes, &n, err));
    return bytes;
}

eval_task *task_of(const char *yaml)
{
    eval_task *task = NULL;
    put("task.yaml", yaml);
    ok(eval_task_load("task.yaml", &task, err));
    return task;
}

eval_docs *docs_of(const eval_task *task)
{
    eval_docs *docs = NULL;
    ok(eval_docs_load(task, NULL, 0, NULL, &docs, err));
    return docs;
}

static const char tokenizer_head[] =
    "{\"version\": \"1.0\", \"added_tokens\": ["
    "{\"id\": 0, \"content\": \"<s>\", \"special\": true, \"single_word\": "
    "false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false}, "
    "{\"id\": 1, \"content\": \"</s>\", \"special\": true, \"single_word\": "
    "false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false}], "
    "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
    "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true},"
    " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": ["
    "{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": "
    "{\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"Sequence\": {\"id\": "
    "\"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],"
    " \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [0], "
    "\"tokens\": [\"<s>\"]}}}, "
    "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
    "\"trim_offsets\": true, \"use_regex\": true}, \"model\": {\"type\": "
    "\"BPE\", \"dropout\": null, \"unk_token\": null, "
    "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
    "\"fuse_unk\": false, \"byte_fallback\": false, \"merges\": [], "
    "\"vocab\": {\"<s>\": 0, \"</s>\": 1";

static text_tokenizer *tokenizer(void)
{
    base_str s = {0};
    base_str_puts(&s, tokenizer_head);
    for (int c = '!'; c <= '~'; c++)
        base_str_printf(&s, ", \"%s%c\": %d", c == '"' || c == '\\' ? "\\" : "",
                        c, c - '!' + 2);
    base_str_puts(&s, ", \"\xc4\xa0\": 96, \"\xc4\x8a\": 97}}}");
    ok(base_mkdirs("tok", err));
    put("tok/tokenizer.json", s.s);
    put("tok/tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}");
    base_str_free(&s);
    text_tokenizer *tok = NULL;
    ok(text_tokenizer_open("tok", &tok, err));
    return tok;
}

bench bench_open(void)
{
    tiny_spec spec = {.vocab = 98, .seed = 11};
    bench b = {.t = tiny_open(&spec, "cpu", BASE_F32, 1), .tok = tokenizer()};
    ok(infer_engine_new(b.t.m, NULL, &b.engine, err));
    b.subject = (eval_subject){.name = "base",
                               .engine = b.engine,
                               .model = b.t.m,
                               .tok = b.tok,
                               .hash = 7};
    return b;
}

void bench_close(bench *b)
{
    infer_engine_free(b->engine);
    text_tokenizer_close(b->tok);
    tiny_close(&b->t);
}
