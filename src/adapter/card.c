/* card.c - the short model card (README.md) of an adapter folder. Owns its
 * words; the same adapter gives the same bytes. */
#include "adapter/adapter_i.h"

#include <math.h>

static const char *method_name(const char *method)
{
    static const struct {
        const char *key, *name;
    } names[] = {
        {"lori-d", "LoRI-D: A random and frozen, B trained densely"},
        {"lori-s", "LoRI-S: A random and frozen, B trained at kept entries "
                   "only"},
        {"lora", "LoRA: A and B trained"},
        {"merge", "merged from several adapters"},
    };
    for (size_t i = 0; method && i < sizeof names / sizeof *names; i++)
        if (strcmp(method, names[i].key) == 0)
            return names[i].name;
    return method ? method : "LoRA";
}

/* A YAML double-quoted scalar, which JSON's string syntax is too. */
static void add_quoted(base_str *out, const char *text)
{
    json_t *s = json_string(text);
    if (s)
        format_json_text(s, FORMAT_JSON_ASCII, out);
    else
        out->failed = true;
    json_decref(s);
}

/* "32", or "8 to 32" when sites differ. */
static void add_range(base_str *out, const adapter *ad, bool rank)
{
    double lo = (double)INFINITY, hi = -(double)INFINITY;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        double v = rank ? (double)s->rank : s->alpha;
        lo = fmin(lo, v);
        hi = fmax(hi, v);
    }
    base_str_printf(out, lo < hi ? "%.9g to %.9g" : "%.9g", lo, hi);
}

void adapter_card(const adapter *ad, base_str *out)
{
    int64_t a = adapter_count_a(ad), b = adapter_count_b(ad), nonzero = 0;
    for (int64_t i = 0; i < ad->n_sites; i++)
        for (int64_t j = 0; j < ad->sites[i].out * ad->sites[i].rank; j++)
            nonzero += ad->sites[i].B[j] != 0;
    const char *base = ad->base_model ? ad->base_model : "BASE_MODEL";
    base_str_puts(out, "---\n");
    if (ad->base_model) {
        base_str_puts(out, "base_model: ");
        add_quoted(out, ad->base_model);
        base_str_puts(out, "\n");
    }
    base_str_puts(out, "library_name: peft\npipeline_tag: text-generation\n"
                       "tags:\n- lora\n- lori\n---\n\n# Adapter\n\n");
    base_str_printf(out, "- Base model: `%s`\n", base);
    base_str_printf(out, "- Method: %s\n", method_name(ad->method));
    base_str_puts(out, "- Rank: ");
    add_range(out, ad, true);
    base_str_puts(out, ", alpha: ");
    add_range(out, ad, false);
    base_str_printf(out, "%s\n- Adapted layers: %lld\n",
                    ad->use_rslora ? ", scale alpha / sqrt(rank)" : "",
                    (long long)ad->n_sites);
    base_str_printf(out, "- Entries of A: %lld; of B: %lld, not zero: %lld\n",
                    (long long)a, (long long)b, (long long)nonzero);
    if (ad->origin.has_seed)
        base_str_printf(out, "- A: version %d, seed %llu\n", ad->origin.version,
                        (unsigned long long)ad->origin.seed);
    base_str_puts(out, "\nWith PEFT:\n\n```python\n"
                       "from peft import PeftModel\n"
                       "from transformers import AutoModelForCausalLM\n\n");
    base_str_puts(out, "base = AutoModelForCausalLM.from_pretrained(");
    add_quoted(out, base);
    base_str_puts(out, ")\nmodel = PeftModel.from_pretrained(base, "
                       "\"THIS_FOLDER\")\n```\n\nWith lori:\n\n```\n");
    base_str_printf(out,
                    "lori generate --model %s --adapter THIS_FOLDER --prompt "
                    "\"...\"\n```\n",
                    base);
}
