/* tasks.c - presets: the tasks of the LoRI reference, as the YAML that a user
 * could have written. A new one is a row. Prompts and extraction are the
 * reference's own (spec/eval.md 1): no BOS, greedy, at most 512 new tokens,
 * and what is judged is prompt and completion together. Unlike there, every
 * row counts: none is lost to an incomplete last batch or to a double prompt.
 * Includes eval_i.h. */
#include "eval/eval_i.h"

/* The evaluation prompt of all commonsense tasks: the space behind "request."
 * and the 16 before each line are the reference's. */
#define INDENT "                "
#define COMMONSENSE_PROMPT                                                     \
    "Below is an instruction that describes a task. Write a response that "    \
    "appropriately completes the request. \\n\\n" INDENT                       \
    "### Instruction:\\n" INDENT "{{instruction}}\\n\\n" INDENT                \
    "### Response:\\n" INDENT

typedef struct preset {
    const char *name, *about;
    const char *file;    /* under the data folder */
    const char *answers; /* commonsense: the pattern of an answer */
    const char *yaml;    /* or the whole of it behind name and file */
} preset;

static const char gsm8k[] =
    "output_type: generate_until\n"
    "doc_to_text: \"{{question}}\\nAnswer the above question. First think "
    "step by step and then answer the final number.\\n\"\n"
    "doc_to_target: \"{{answer}}\"\n"
    "target_delimiter: \"\"\n"
    "add_special_tokens: false\n"
    "max_new_tokens: 512\n"
    "judged_text: prompt_and_completion\n"
    "extract:\n"
    "  remove: \",\"\n"
    "  marker: \"The final answer is: \"\n"
    "  regex: '-?\\d+\\.?\\d*'\n"
    "  take: last\n"
    "compare: number\n";

static const char five[] = "answer1|answer2|answer3|answer4|answer5";

static const preset presets[] = {
    {"gsm8k", "word problems, the final number", "gsm8k/test.jsonl", NULL,
     gsm8k},
    {"boolq", "true or false", "commonsense/boolq.test.json", "true|false",
     NULL},
    {"piqa", "two solutions", "commonsense/piqa.test.json",
     "solution1|solution2", NULL},
    {"social_i_qa", "three answers", "commonsense/social_i_qa.test.json", five,
     NULL},
    {"arc-challenge", "three to five answers",
     "commonsense/arc-challenge.test.json", five, NULL},
    {"arc-easy", "three to five answers", "commonsense/arc-easy.test.json",
     five, NULL},
    {"openbookqa", "four answers", "commonsense/openbookqa.test.json", five,
     NULL},
    {"hellaswag", "four endings", "commonsense/hellaswag.test.json",
     "ending1|ending2|ending3|ending4", NULL},
    {"winogrande", "two options", "commonsense/winogrande.test.json",
     "option1|option2", NULL},
};
#define N_PRESETS (sizeof presets / sizeof *presets)

static void commonsense_yaml(const preset *p, base_str *out)
{
    base_str_printf(out,
                    "output_type: generate_until\n"
                    "doc_to_text: \"%s\"\n"
                    "doc_to_target: \"{{answer}}\"\n"
                    "target_delimiter: \"\"\n"
                    "add_special_tokens: false\n"
                    "max_new_tokens: 512\n"
                    "judged_text: prompt_and_completion\n"
                    "extract:\n"
                    "  remove: \",\"\n"
                    "  after_last: \"### Response:\"\n"
                    "  regex: '%s'\n"
                    "  take: first\n",
                    COMMONSENSE_PROMPT, p->answers);
}

bool preset_text(const char *name, base_str *out)
{
    for (size_t i = 0; i < N_PRESETS; i++) {
        const preset *p = &presets[i];
        if (strcmp(p->name, name) != 0)
            continue;
        base_str_printf(out, "task: %s\ntest_file: %s\n", p->name, p->file);
        if (p->yaml)
            base_str_puts(out, p->yaml);
        else
            commonsense_yaml(p, out);
        return true;
    }
    return false;
}

const char *preset_nearest(const char *name)
{
    const char *names[N_PRESETS];
    for (size_t i = 0; i < N_PRESETS; i++)
        names[i] = presets[i].name;
    return base_nearest(name, names, N_PRESETS);
}

void eval_presets_list(base_str *out)
{
    for (size_t i = 0; i < N_PRESETS; i++)
        base_str_printf(out, "  %-15s %-34s %s\n", presets[i].name,
                        presets[i].file, presets[i].about);
}

lori_status eval_preset_text(const char *name, base_str *out, lori_error *err)
{
    if (preset_text(name, out))
        return LORI_OK;
    const char *near = preset_nearest(name);
    return base_fail(err, LORI_INVALID, "no preset is named '%s'%s%s%s", name,
                     near ? "; did you mean '" : "", near ? near : "",
                     near ? "'?" : "");
}
