/* test_eval_run.c - a tiny random model on each kind of task: the numbers are
 * those of the engine called directly, and a stopped run that goes on leaves
 * the same bytes as one that was never stopped. */
#include <math.h>

#include "eval_test.h"

TestSuite(eval_run, .init = here_begin, .fini = here_end);

enum { ROWS = 150 };

/* Rows of different lengths, choices nearly of one length. */
static void put_rows(void)
{
    base_str s = {0};
    for (int i = 0; i < ROWS; i++)
        base_str_printf(&s,
                        "{\"q\": \"say %.*s%d\", \"a\": \"%d\", \"o\": "
                        "[\"n%c\", \"%d\", \"%c%.*s\"], \"g\": 1}\n",
                        i % 9, "........", i, i, 'a' + i % 26, 10 + i * 37 % 90,
                        'a' + i * 7 % 26, 1 + i % 2, "Yz");
    put("rows.jsonl", s.s);
    base_str_free(&s);
}

static eval_score run(const bench *b, const eval_task *t, const eval_docs *docs,
                      const char *output)
{
    eval_score score;
    eval_options o = {.output = output, .log_samples = true, .total = docs->n};
    ok(eval_run(&b->subject, t, docs, &o, &score, err));
    return score;
}

/* ---- choice ---------------------------------------------------------------
 */

#define CHOICE                                                                 \
    "task: pick\noutput_type: multiple_choice\ntest_file: rows.jsonl\n"        \
    "doc_to_text: '{{q}}: '\ndoc_to_choice: '{{o}}'\ndoc_to_target: '{{g}}'\n"

/* log p of `text` from byte `from` on, "<s>" before it. */
static double direct(const bench *b, const char *text, size_t from)
{
    double nll[64], sum = 0;
    text_ids ids = {0};
    ok(text_encode(b->tok, text, strlen(text), TEXT_ADD_SPECIAL, &ids, err));
    infer_score_item item = {.ids = ids.ids,
                             .n_ids = (int64_t)ids.n,
                             .first = (int64_t)from + 1,
                             .nll = nll};
    ok(infer_score(b->engine, &item, 1, NULL, err));
    for (int64_t i = 0; i < item.n_ids - item.first; i++)
        sum -= nll[i];
    text_ids_free(&ids);
    return sum;
}

Test(eval_run, choices_are_the_likeliest)
{
    bench b = bench_open();
    put_rows();
    eval_task *t = task_of(CHOICE);
    eval_docs *docs = docs_of(t);
    eval_score score = run(&b, t, docs, NULL);
    double acc = 0, norm = 0;
    for (int64_t i = 0; i < docs->n; i++) {
        const eval_doc *doc = &docs->doc[i];
        double ll[3];
        for (int k = 0; k < 3; k++) {
            /* the blank at the prompt's end belongs to the choice */
            char text[128];
            snprintf(text, sizeof text, "%s %s", doc->prompt, doc->choices[k]);
            ll[k] = direct(&b, text, strlen(doc->prompt) - 1);
        }
        size_t n = strlen(doc->choices[1]);
        acc += ll[1] > ll[0] && ll[1] > ll[2];
        norm += ll[1] / (double)n > ll[0] / 2 &&
                ll[1] / (double)n > ll[2] / (double)strlen(doc->choices[2]);
    }
    cr_assert_eq(score.n, ROWS);
    cr_assert_eq(score.metric[0].value, acc / ROWS);
    cr_assert_eq(score.metric[1].value, norm / ROWS);
    /* otherwise the comparison would be empty */
    cr_assert(acc > 0 && acc < ROWS && norm > 0 && norm < ROWS && acc != norm,
              "%g %g", acc, norm);
    eval_docs_free(docs);
    eval_task_free(t);
    bench_close(&b);
}

/* ---- generation ------------------------------------------------------------
 */

/* What the model says to q, as the tasks below have it. */
static char *said_to(const bench *b, const char *q, uint64_t seed)
{
    text_ids ids = {0};
    base_str text = {0};
    ok(text_encode(b->tok, q, strlen(q), 0, &ids, err));
    infer_request r = {
        .prompt = ids.ids,
        .n_prompt = (int64_t)ids.n,
        .max_new_tokens = 12,
        .sampling = {
            .sample = true, .temperature = 1.5, .top_p = 1, .seed = seed}};
    size_t n_stops;
    r.stops = text_stops(b->tok, &n_stops);
    r.n_stops = (int64_t)n_stops;
    infer_result result = {0};
    ok(infer_run(b->engine, &r, 1, NULL, &result, err));
    ok(text_decode(b->tok, result.ids, (size_t)result.n, TEXT_SKIP_SPECIAL,
                   &text, err));
    cr_assert_gt(text.len, 4);
    infer_results_free(&result, 1);
    text_ids_free(&ids);
    return base_str_take(&text);
}

/* Two rows; the first one's target is `answer`, the other's is never said. */
static void put_two_rows(const char *answer)
{
    json_t *row = json_pack("{ssss}", "q", "one", "a", answer);
    base_str rows = {0};
    format_json_text(row, 0, &rows);
    json_decref(row);
    base_str_puts(&rows, "\n{\"q\": \"two more\", \"a\": \"?\"}\n");
    put("rows.jsonl", rows.s);
    base_str_free(&rows);
}

#define SAYING                                                                 \
    "output_type: generate_until\ntest_file: rows.jsonl\n"                     \
    "doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\nmax_new_tokens: 12\n"       \
    "temperature: 1.5\nseed: 40\nadd_special_tokens: false\n"

/* The score of a task on the rows, and the second row's line in its log. */
static eval_score run_rows(bench *b, const char *yaml, const char *log_path,
                           json_t **second)
{
    eval_task *t = task_of(yaml);
    eval_docs *docs = docs_of(t);
    const eval_score score = run(b, t, docs, "out");
    char *log = slurp(log_path), *line = strchr(log, '\n') + 1;
    ok(format_json_parse(line, strlen(line), "log", second, err));
    free(log);
    eval_docs_free(docs);
    eval_task_free(t);
    return score;
}

static const char *completion(const json_t *line)
{
    return json_string_value(json_object_get(line, "completion"));
}

Test(eval_run, answers_are_generated_and_judged)
{
    bench b = bench_open();
    char *first = said_to(&b, "one", 40), *second = said_to(&b, "two more", 41);
    json_t *line = NULL;
    put_two_rows(first);
    const eval_score score =
        run_rows(&b, "task: say\n" SAYING, "out/base/say.jsonl", &line);
    cr_assert_eq(score.metric[0].value, 0.5);
    cr_assert_str_eq(completion(line), second);
    json_decref(line);
    free(first);
    free(second);
    bench_close(&b);
}

/* Nothing behind a stop string is generated: here the third character. */
Test(eval_run, answers_end_at_a_stop_string)
{
    bench b = bench_open();
    char *said = said_to(&b, "two more", 41), yaml[512];
    const char stop = said[2];
    const size_t before = strcspn(said, (char[]){stop, 0});
    json_t *line = NULL;
    put_two_rows("?");
    snprintf(yaml, sizeof yaml, "task: cut\n" SAYING "until: [\"\\x%02x\"]\n",
             (unsigned)stop);
    run_rows(&b, yaml, "out/base/cut.jsonl", &line);
    cr_assert_eq(strlen(completion(line)), before);
    cr_assert_eq(strncmp(completion(line), said, before), 0);
    cr_assert_eq(json_integer_value(json_object_get(line, "new_tokens")),
                 (json_int_t)before + 1);
    json_decref(line);
    free(said);
    bench_close(&b);
}

/* ---- perplexity ------------------------------------------------------------
 */

Test(eval_run, rolling_windows)
{
    bench b = bench_open();
    int64_t most = model_get_config(b.t.m)->max_positions;
    size_t n = (size_t)most * 2 + 17; /* three windows */
    char *text = malloc(n + 1), path[] = "rows.jsonl";
    for (size_t i = 0; i < n; i++)
        text[i] = i % 7 == 3 ? ' ' : (char)('a' + i * i % 23);
    text[n] = 0;
    json_t *row = json_pack("{ss}", "t", text);
    base_str rows = {0};
    format_json_text(row, 0, &rows);
    base_str_puts(&rows, "\n{\"t\": \"two  words \"}\n");
    put(path, rows.s);
    json_decref(row);
    base_str_free(&rows);
    eval_task *t = task_of("task: ppl\noutput_type: loglikelihood_rolling\n"
                           "test_file: rows.jsonl\ndoc_to_target: '{{t}}'\n");
    eval_docs *docs = docs_of(t);
    eval_score score = run(&b, t, docs, "out");

    /* every token once: from "<s>", then windows that end where they must */
    text_ids ids = {0};
    ok(text_ids_add(&ids, text_bos(b.tok), err));
    ok(text_encode(b.tok, text, n, 0, &ids, err));
    double *nll = malloc((n + 16) * sizeof *nll), sum = 0;
    infer_score_item items[4] = {
        {.ids = ids.ids, .n_ids = most + 1, .first = 1, .nll = nll},
        {.ids = ids.ids + most,
         .n_ids = most + 1,
         .first = 1,
         .nll = nll + most},
        {.ids = ids.ids + ids.n - (most + 1),
         .n_ids = most + 1,
         .first = most + 1 - 17,
         .nll = nll + 2 * most}};
    static const int32_t second[] = {'t', 'w', 'o', ' ', ' ', 'w',
                                     'o', 'r', 'd', 's', ' '};
    int32_t short_ids[12] = {0};
    for (int i = 0; i < 11; i++)
        short_ids[i + 1] = second[i] == ' ' ? 96 : second[i] - '!' + 2;
    items[3] = (infer_score_item){
        .ids = short_ids, .n_ids = 12, .first = 1, .nll = nll + n};
    ok(infer_score(b.engine, items, 4, NULL, err));
    for (size_t i = 0; i < n + 11; i++)
        sum += nll[i];
    double words = 3; /* of the second text: "two", "words", "" */
    for (size_t i = 0; i < n; i++)
        words += text[i] == ' ';
    words += 1;
    /* Both add f32 nlls, in another order of batches. */
    cr_assert_float_eq(score.metric[4].value, sum / (double)(n + 11),
                       1e-6 * score.metric[4].value);
    cr_assert_float_eq(score.metric[0].value, exp(sum / words),
                       1e-5 * score.metric[0].value);
    free(nll);
    text_ids_free(&ids);
    eval_docs_free(docs);
    eval_task_free(t);
    free(text);
    bench_close(&b);
}

/* ---- stop and go on --------------------------------------------------------
 */

/* Asks to stop at the given question. */
typedef struct stopper {
    int questions, stop_at;
} stopper;

static int ask(void *context)
{
    stopper *s = context;
    return ++s->questions >= s->stop_at;
}

#define SAY                                                                    \
    "task: say\noutput_type: generate_until\ntest_file: rows.jsonl\n"          \
    "doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\nmax_new_tokens: 6\n"        \
    "temperature: 0.9\nseed: 5\n"
#define PPL                                                                    \
    "task: ppl\noutput_type: loglikelihood_rolling\ntest_file: rows.jsonl\n"   \
    "doc_to_target: '{{q}}'\n"
static const char *const kinds[] = {CHOICE, SAY, PPL};
static const char *const logs[] = {"pick", "say", "ppl"};

Test(eval_run, stopped_and_resumed_equals_whole)
{
    bench b = bench_open();
    put_rows();
    for (int k = 0; k < 3; k++) {
        eval_task *t = task_of(kinds[k]);
        eval_docs *docs = docs_of(t);
        char whole[64], stopped[64];
        snprintf(whole, sizeof whole, "whole/base/%s.jsonl", logs[k]);
        snprintf(stopped, sizeof stopped, "stopped/base/%s.jsonl", logs[k]);
        eval_score want = run(&b, t, docs, "whole");
        int runs = 0;
        lori_status st = LORI_INTERRUPTED;
        for (; st == LORI_INTERRUPTED && runs < 1000; runs++) {
            stopper stop = {.stop_at = 2 + runs * (k == 1 ? 9 : 1)};
            lori_ui ui = {.context = &stop, .interrupted = ask};
            eval_score got;
            lori_error err;
            eval_options o = {.output = "stopped",
                              .log_samples = true,
                              .ui = &ui,
                              .total = docs->n};
            st = eval_run(&b.subject, t, docs, &o, &got, &err);
            cr_assert(st == LORI_OK || st == LORI_INTERRUPTED, "%s",
                      err.message);
            if (!st)
                for (int64_t i = 0; i < want.n_metrics; i++)
                    cr_assert_eq(got.metric[i].value, want.metric[i].value);
            /* a kill leaves half a line behind */
            FILE *f = st ? fopen(stopped, "a") : NULL;
            if (f) {
                fputs("{\"doc\": 7", f);
                fclose(f);
            }
        }
        cr_assert_gt(runs, 2, "%s was never stopped", logs[k]);
        char *x = slurp(whole), *y = slurp(stopped);
        cr_assert_str_eq(x, y);
        free(x);
        free(y);
        eval_docs_free(docs);
        eval_task_free(t);
    }
    bench_close(&b);
}

static lori_status again(const bench *b, const char *yaml, bool overwrite,
                         lori_error *err)
{
    eval_task *t = task_of(yaml);
    eval_docs *docs = docs_of(t);
    eval_score score;
    eval_options o = {
        .output = "out", .overwrite = overwrite, .total = docs->n};
    lori_status st = eval_run(&b->subject, t, docs, &o, &score, err);
    eval_docs_free(docs);
    eval_task_free(t);
    return st;
}

Test(eval_run, other_settings_are_noticed)
{
    bench b = bench_open();
    put_rows();
    ok(again(&b, CHOICE, false, err));
    char *before = slurp("out/base/pick.jsonl");
    says(again(&b, CHOICE "target_delimiter: ''\nlimit: 5\n", false, err),
         LORI_MISMATCH,
         "base on pick: out/base/pick.jsonl was made with other settings "
         "(documents, data, task.target_delimiter, task.limit); choose another "
         "output folder, or replace it with --overwrite");
    b.subject.hash++;
    says(again(&b, CHOICE, false, err), LORI_MISMATCH,
         "base on pick: out/base/pick.jsonl was made with other settings "
         "(model); choose another output folder, or replace it with "
         "--overwrite");
    b.subject.hash--;
    char *after = slurp("out/base/pick.jsonl");
    cr_assert_str_eq(before, after); /* nothing was touched */
    ok(again(&b, CHOICE "limit: 5\n", true, err));
    free(after);
    after = slurp("out/base/pick.jsonl");
    cr_assert_lt(strlen(after), strlen(before));
    cr_assert_eq(remove("out/base/pick.settings.json"), 0);
    says(again(&b, CHOICE, false, err), LORI_MISMATCH,
         "base on pick: out/base/pick.jsonl was made with other settings (they "
         "are not there); choose another output folder, or replace it with "
         "--overwrite");
    free(before);
    free(after);
    bench_close(&b);
}

Test(eval_run, a_damaged_log_is_named)
{
    bench b = bench_open();
    put_rows();
    ok(again(&b, CHOICE, false, err));
    char *log = slurp("out/base/pick.jsonl");
    strchr(log, '\n')[9] = '9'; /* "doc": 1 becomes 9 */
    put("out/base/pick.jsonl", log);
    says(again(&b, CHOICE, false, err), LORI_FORMAT,
         "base on pick: out/base/pick.jsonl:2: remove this file to make it "
         "again: document 9 stands where 1 should");
    free(log);
    bench_close(&b);
}
