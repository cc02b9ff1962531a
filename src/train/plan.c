/* plan.c - what a run will take of memory, told before any of it is taken, and
 * the schedule of its layers: the fastest that memory_budget allows. Results
 * do not depend on it. Includes train_i.h. Source: spec/engine.md 1.3, 1.6. */
#include "train/train_i.h"

/* Of a free machine's memory this share stays free, for others and for what
 * no plan knows: the program, the tokenizer, the C library's heap. */
#define RESERVE 16
/* Scratch of the backend's operations, a thread. Source: engine.md 1.6. */
#define BACKEND_SCRATCH ((size_t)4 << 20)

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Adapter on host (float) and device; parameters and optimizer state. */
static void parameters(const plan_inputs *in, train_plan *plan)
{
    const adapter *ad = in->start->ad;
    const adapter_keep *keep = in->start->keep;
    const backend *be = model_get_backend(in->m);
    size_t acc = base_dtype_bytes(be->acc), act = base_dtype_bytes(be->act);
    size_t slice = 0, values = 0, bits = 0, n = 0;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        size_t a = (size_t)(s->rank * s->in), b = (size_t)(s->out * s->rank);
        size_t kept = keep ? (size_t)keep->sites[i].kept : b;
        values += a + b;
        if (keep)
            bits += (size_t)s->out * ((size_t)(s->rank + 31) / 32 * 4 + 8);
        n += kept;
        slice = largest(slice, kept);
        if (in->r->method == TRAIN_LORA) {
            n += a;
            slice = largest(slice, a);
        }
    }
    plan->parameters = (int64_t)n;
    plan->adapter = values * (sizeof(float) + act);
    plan->optimizer = (4 * n + slice) * acc + bits;
}

/* Rows in memory, and what tells their order and size. */
static size_t data_bytes(const train_data *d)
{
    return d ? (size_t)d->n_tokens * (sizeof *d->ids + sizeof *d->label) +
                   (size_t)d->n_rows * (sizeof *d->start + 16)
             : 0;
}

static void set_budget(const plan_inputs *in, train_plan *plan)
{
    plan->budget = in->r->memory_budget;
    plan->automatic = plan->budget == 0;
    if (!plan->automatic)
        return;
    base_memory memory = base_memory_at("");
    int64_t own = base_rss_anon_bytes(); /* is in the plan, too */
    plan->budget = memory.available;
    if (plan->budget < INT64_MAX - own)
        plan->budget += own - memory.total / RESERVE;
    if (plan->budget < 0)
        plan->budget = 0;
}

/* Bytes of a run with these limits at its smallest schedule. */
static size_t least(const plan_inputs *in, size_t fixed, model_limits limits)
{
    size_t sum;
    limits.keep_all = limits.keep_no_mlp = 0;
    return base_add(fixed, model_run_bytes(in->m, &limits), &sum) ? sum
                                                                  : SIZE_MAX;
}

/* The most tokens of a pass that fit, with their share of label rows. */
static int64_t fitting_tokens(const plan_inputs *in, size_t fixed,
                              const train_plan *plan)
{
    int64_t low = 0, high = in->limits->tokens;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        model_limits l = *in->limits;
        l.tokens = middle;
        l.rows = l.rows * middle / in->limits->tokens + 1;
        if (least(in, fixed, l) <= (size_t)plan->budget)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* What is wrong and what would help. */
static lori_status too_small(const plan_inputs *in, size_t fixed,
                             const train_plan *plan, lori_error *err)
{
    char budget[32], need[32], rest[32];
    const train_recipe *r = in->r;
    base_human_bytes((double)plan->budget, budget, sizeof budget);
    base_human_bytes((double)plan->total, need, sizeof need);
    base_human_bytes((double)fixed, rest, sizeof rest);
    int64_t tokens = fitting_tokens(in, fixed, plan);
    int64_t batch =
        r->per_device_train_batch_size * tokens / in->limits->tokens;
    char help[128] = "";
    if (batch > 0)
        snprintf(help, sizeof help,
                 ", or lower per_device_train_batch_size from %lld to %lld",
                 (long long)r->per_device_train_batch_size, (long long)batch);
    else if (tokens > 1)
        snprintf(help, sizeof help,
                 ", or set per_device_train_batch_size: 1 and max_seq_length: "
                 "%lld",
                 (long long)tokens);
    return base_fail(err, LORI_NO_MEMORY,
                     "memory_budget of %s: with every layer recomputed this "
                     "run takes %s (%s without its workspace for %lld tokens a "
                     "pass); raise it to %zuMB%s",
                     budget, need, rest, (long long)in->limits->tokens,
                     (plan->total + 999999) / 1000000, help);
}

static void fill_parts(const plan_inputs *in, size_t fixed, train_plan *plan)
{
    const model_limits *l = in->limits;
    int64_t layers = model_get_config(in->m)->n_layers;
    model_bytes part;
    model_run_parts(in->m, l, &part);
    plan->kept = part.kept;
    plan->live = part.live;
    plan->logits = part.logits;
    plan->scratch = part.scratch + (size_t)model_get_backend(in->m)->n_threads *
                                       BACKEND_SCRATCH;
    plan->tokens = l->tokens;
    plan->keep_all = plan->keep_no_mlp = plan->keep_inputs = 0;
    for (int64_t i = 0; i < layers; i++) {
        model_schedule s = model_schedule_of(l, i);
        plan->keep_all += s == MODEL_KEEP_ALL;
        plan->keep_no_mlp += s == MODEL_KEEP_NO_MLP;
        plan->keep_inputs += s == MODEL_KEEP_INPUTS;
    }
    if (!base_add(fixed, part.total, &plan->total))
        plan->total = SIZE_MAX;
}

lori_status plan_memory(const plan_inputs *in, train_plan *plan,
                        lori_error *err)
{
    size_t converted;
    *plan = (train_plan){0};
    set_budget(in, plan);
    parameters(in, plan);
    model_weight_bytes(in->m, &plan->mapped, &converted);
    plan->converted = converted;
    plan->data = data_bytes(in->data) + data_bytes(in->eval);
    size_t fixed =
        plan->mapped + converted + plan->adapter + plan->optimizer +
        plan->data +
        (size_t)model_get_backend(in->m)->n_threads * BACKEND_SCRATCH;
    size_t budget = (size_t)plan->budget;
    size_t room = budget > fixed ? budget - fixed : 0;
    bool fits = model_limits_fit(in->m, room, in->limits);
    if (in->r->gradient_checkpointing)
        in->limits->keep_all = in->limits->keep_no_mlp = 0;
    fill_parts(in, fixed, plan);
    plan->fits = fits;
    return fits || plan->automatic ? LORI_OK : too_small(in, fixed, plan, err);
}

/* ---- words ----------------------------------------------------------- */

static void put_part(base_str *out, const char *name, size_t bytes)
{
    char text[32];
    if (bytes)
        base_str_printf(out, ", %s %s", name,
                        base_human_bytes((double)bytes, text, sizeof text));
}

void train_plan_text(const train_plan *p, const char *before, base_str *out)
{
    char total[32], budget[32];
    base_human_bytes((double)p->total, total, sizeof total);
    base_human_bytes((double)p->budget, budget, sizeof budget);
    base_str_printf(out,
                    "%s%lld steps of %lld rows, %lld trained parameters, at "
                    "most %lld tokens a pass\n",
                    before, (long long)p->steps, (long long)p->rows_per_step,
                    (long long)p->parameters, (long long)p->tokens);
    base_str_printf(out, "%smemory %s planned, %s %s", before, total, budget,
                    p->automatic ? "free less a reserve of 1/16 of all"
                                 : "allowed by memory_budget");
    put_part(out, "weights mapped", p->mapped);
    put_part(out, "weights converted", p->converted);
    put_part(out, "adapter", p->adapter);
    put_part(out, "optimizer", p->optimizer);
    put_part(out, "rows", p->data);
    put_part(out, "kept for backward", p->kept);
    put_part(out, "live block", p->live);
    put_part(out, "logits", p->logits);
    put_part(out, "scratch", p->scratch);
    base_str_printf(out,
                    "\n%slayers: %lld keep everything, %lld recompute gate and "
                    "up, %lld all but o and down\n",
                    before, (long long)p->keep_all, (long long)p->keep_no_mlp,
                    (long long)p->keep_inputs);
}
