"""Adapter and model folders exchanged with peft and transformers, both ways.

Theirs here: adapters that peft saved, through our model. Ours there: adapters
that `lori train` and `lori merge` wrote, through PeftModel; `lori merge --into`
folders through AutoModelForCausalLM; merges against add_weighted_adapter.
"""

import json
import sys
import warnings

import common
from common import of_range, relative

# f32 on both sides; the issue asks for 1e-4, the forward tolerance is as easy.
LOGITS_TOL = 2e-5
# Products of the same f32 factors, each factor rounded once or twice.
DELTA_TOL = 1e-6
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def small_families(rng):
    return {
        "llama": common.Family("llama", theta=500000.0,
                               scaling=common.llama3_scaling(rng, 8.0)),
        "tied": common.Family("tied", theta=500000.0, tied=True),
        "mistral": common.Family("mistral", kind="mistral", window=11),
    }


def peft_logits(base, adapter, batch):
    """(logits of PeftModel.from_pretrained, what it complained about)"""
    import peft
    import torch
    model = common.load_model(base, torch.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wrapped = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
        result = wrapped.load_adapter(str(adapter), "again")
    wrapped.set_adapter("default")
    said = [str(w.message) for w in said if "is_gradient_checkpointing" not in str(w.message)]
    with torch.no_grad():
        return common.torch_logits(wrapped, batch), said, result, wrapped


# ---- theirs here -----------------------------------------------------------

def variants(rng):
    """{name: options of LoraConfig}"""
    return {
        "r 64, alpha 128": dict(r=64, alpha=128, std_b=0.02),
        "r 8, alpha 20": dict(r=8, alpha=20),
        "rslora": dict(r=8, alpha=20, use_rslora=True),
        "rank_pattern": dict(r=8, alpha=20, rank_pattern={
            "q_proj": 4, "layers.1.mlp.down_proj": 12}),
        "alpha_pattern": dict(r=6, alpha=9, alpha_pattern={"v_proj": 33}),
        "two targets": dict(r=5, alpha=7, targets=["q_proj", "v_proj"]),
        "one layer": dict(r=4, alpha=12, layers_to_transform=[1]),
    }


def theirs_here(args, checks, work, base, batch, rng):
    import torch
    for name, options in variants(rng).items():
        options = dict(options)
        r, alpha = options.pop("r"), options.pop("alpha")
        model = common.load_model(base, torch.float32)
        with torch.no_grad():
            plain = common.torch_logits(model, batch)
        wrapped = common.random_lora(model, rng, r, alpha, **options)
        folder = work / ("peft-" + "".join(c if c.isalnum() else "_" for c in name))
        wrapped.save_pretrained(str(folder))
        with torch.no_grad():
            theirs = common.torch_logits(wrapped, batch)
        ours = common.probe_model(args, work, base, batch, folder)
        checks.at_least(f"peft {name}: the adapter is visible", of_range(plain, theirs),
                        50 * LOGITS_TOL)
        checks.at_most(f"peft {name}: our logits", of_range(ours["logits"], theirs),
                       LOGITS_TOL)


def enlarged_vocabulary(args, checks, work, base, batch, rng):
    """As the published LoRI adapters: trained over a base with one pad row
    more, so the file also holds embed_tokens and lm_head."""
    import torch
    model = common.load_model(base, torch.float32)
    vocab = model.config.vocab_size
    model.resize_token_embeddings(vocab + 1)
    wrapped = common.random_lora(model, rng, 8, 20)
    folder = work / "peft-enlarged"
    wrapped.save_pretrained(str(folder), save_embedding_layers=True)
    with torch.no_grad():
        theirs = common.torch_logits(wrapped, batch)[:, :vocab]
    ours = common.probe_model(args, work, base, batch, folder)
    checks.at_most("peft adapter of a base with V + 1 rows: our logits",
                   of_range(ours["logits"], theirs), LOGITS_TOL)


# ---- ours there ------------------------------------------------------------

def write_rows(path, rng, vocab, n):
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(n):
            ids = [rng.randrange(vocab) for _ in range(rng.randrange(8, 24))]
            prompt = rng.randrange(1, len(ids) - 1)
            labels = [-100] * prompt + ids[prompt:]
            out.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")


def train_recipe(path, **keys):
    """A flat recipe; values are JSON, which is YAML."""
    path.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in keys.items()))
    return path


def our_adapter(args, work, base, rng, vocab, name, **keys):
    """An adapter folder that `lori train` wrote after a few steps."""
    rows = work / f"{name}.jsonl"
    write_rows(rows, rng, vocab, 24)
    recipe = train_recipe(work / f"{name}.yaml", model_name_or_path=str(base),
                          train_file=str(rows), dtype="f32", max_steps=4,
                          per_device_train_batch_size=4, learning_rate=5e-3,
                          output_dir=str(work / name), **keys)
    common.lori(args, "train", recipe)
    return work / name


def check_ours(args, checks, work, base, batch, folder, name):
    """Loads in peft without a word, uses every tensor, same logits."""
    import peft
    from safetensors.torch import load_file
    theirs, said, result, wrapped = peft_logits(base, folder, batch)
    checks.equal(f"{name}: peft warns of nothing", said, [])
    lost = [k for k in result.missing_keys if "lora_" in k]
    checks.equal(f"{name}: no missing, no unexpected key",
                 (lost, list(result.unexpected_keys)), ([], []))
    in_file = set(load_file(str(folder / "adapter_model.safetensors")))
    in_peft = set(peft.get_peft_model_state_dict(wrapped, adapter_name="default"))
    checks.equal(f"{name}: the file holds peft's keys", sorted(in_file), sorted(in_peft))
    ours = common.probe_model(args, work, base, batch, folder)
    plain = common.probe_model(args, work, base, batch)
    checks.at_least(f"{name}: the adapter is visible", of_range(plain["logits"], theirs),
                    50 * LOGITS_TOL)
    checks.at_most(f"{name}: peft's logits", of_range(ours["logits"], theirs), LOGITS_TOL)


def ours_there(args, checks, work, base, batch, rng, family):
    vocab = int(json.loads((base / "config.json").read_text())["vocab_size"])
    kinds = {
        "lori": dict(method="lori", lora_rank=8, lora_alpha=20),
        "lora": dict(method="lora", lora_rank=6, lora_alpha=9, use_rslora=True),
        "lori-qv": dict(method="lori", lora_rank=4, lora_alpha=10,
                        lora_target_modules=["q_proj", "v_proj"]),
    }
    for kind, keys in kinds.items():
        name = f"ours-{family}-{kind}"
        folder = our_adapter(args, work, base, rng, vocab, name, **keys)
        check_ours(args, checks, work, base, batch, folder, f"{family}: trained {kind}")


# ---- merges ----------------------------------------------------------------

def deltas(wrapped, name):
    """{path: s B A} of one adapter of a peft model."""
    import peft
    out = {}
    for path, module in wrapped.base_model.model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and name in module.lora_A:
            out[path] = module.get_delta_weight(name).detach().double()
    return out


def exact_sum(parts, weights):
    """Sum of weighted deltas in double; a missing site counts as zero."""
    total = {}
    for part, weight in zip(parts, weights):
        for path, value in part.items():
            total[path] = total.get(path, 0) + weight * value
    return total


def worst_delta(ours, theirs):
    if sorted(ours) != sorted(theirs):
        return float("nan")
    return max(relative(ours[k], theirs[k]) for k in theirs)


def two_adapters(work, base, rng, ranks, tag, **options):
    """A peft model with adapters "default" and "second", both saved."""
    import peft
    import torch
    model = common.load_model(base, torch.float32)
    wrapped = common.random_lora(model, rng, ranks[0], 2.5 * ranks[0], **options)
    wrapped.add_adapter("second", peft.LoraConfig(
        r=ranks[1], lora_alpha=1.5 * ranks[1], target_modules=TARGETS,
        task_type="CAUSAL_LM"))
    common.fill_lora(wrapped, "second", rng)
    folder = work / f"two-{tag}"
    wrapped.save_pretrained(str(folder))
    return wrapped, [folder, folder / "second"]


def load_deltas(base, folder):
    import peft
    import torch
    model = common.load_model(base, torch.float32)
    return deltas(peft.PeftModel.from_pretrained(model, str(folder)), "default")


def merge_words(folders, weights, output, *more):
    words = ["merge"]
    for folder in folders:
        words += ["--adapter", folder]
    return [*words, "--weights", ",".join(map(repr, weights)), *more, "--output", output]


def adapter_merges(args, checks, work, base, batch, rng):
    cases = [("cat", (8, 8), [0.5, 1.5]), ("cat", (8, 4), [1.0, -0.8]),
             ("linear", (8, 8), [0.5, 1.5]), ("linear", (8, 8), [1.25, -0.75])]
    for i, (method, ranks, weights) in enumerate(cases):
        name = f"merge {method} {ranks} {weights}"
        wrapped, folders = two_adapters(work, base, rng, ranks, f"adapters-{i}")
        wrapped.add_weighted_adapter(["default", "second"], weights, "merged",
                                     combination_type=method)
        output = work / f"merged-{i}"
        common.lori(args, *merge_words(folders, weights, output, "--method", method))
        ours = load_deltas(base, output)
        checks.at_most(f"{name}: B A as add_weighted_adapter, worst site",
                       worst_delta(ours, deltas(wrapped, "merged")), DELTA_TOL)
        parts = [deltas(wrapped, "default"), deltas(wrapped, "second")]
        error = worst_delta(ours, exact_sum(parts, weights))
        if method == "cat":
            checks.at_most(f"{name}: B A is the weighted sum", error, DELTA_TOL)
        else:  # cross terms B_i A_j: were they missing, this would be cat
            checks.at_least(f"{name}: B A has cross terms", error, 50 * DELTA_TOL)
        check_ours(args, checks, work, base, batch, output, name)


def base_merges(args, checks, work, base, batch, rng, family):
    """`lori merge --into` of one adapter against peft's merge_and_unload, and
    of two weighted ones against the sum in double."""
    import torch
    wrapped, folders = two_adapters(work, base, rng, (8, 4), f"into-{family}")
    parts = [deltas(wrapped, "default"), deltas(wrapped, "second")]
    weights = [0.75, -0.5]
    one, both = work / f"into-{family}-one", work / f"into-{family}-both"
    common.lori(args, "merge", "--into", base, "--adapter", folders[0],
                "--dtype", "f32", "--output", one)
    common.lori(args, *merge_words(folders, weights, both, "--into", base, "--dtype", "f32"))
    wrapped.set_adapter("default")
    with torch.no_grad():
        theirs = common.torch_logits(wrapped.merge_and_unload(adapter_names=["default"]), batch)
        ours = load_merged(checks, one, f"{family}: merge --into")
        checks.at_most(f"{family}: merge --into, logits in transformers",
                       of_range(common.torch_logits(ours, batch), theirs), LOGITS_TOL)
    mine = common.probe_model(args, work, one, batch)
    checks.at_most(f"{family}: merge --into, our logits", of_range(mine["logits"], theirs),
                   LOGITS_TOL)
    check_weights(checks, base, both, exact_sum(parts, weights), f"{family}: merge of two --into")


def load_merged(checks, folder, name):
    """The folder in transformers; nothing missing, nothing left over."""
    import torch
    import transformers
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager",
        output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    checks.equal(f"{name}: transformers loads every key", wrong, {})
    return model.eval()


def check_weights(checks, base, merged, total, name):
    """Every weight: base + delta where there is one, else untouched."""
    import torch
    before = common.load_model(base, torch.float32).state_dict()
    after = load_merged(checks, merged, name).state_dict()
    untouched = [k for k in before if k.removesuffix(".weight") not in total]
    checks.equal(f"{name}: other weights are untouched",
                 [k for k in untouched if not torch.equal(before[k], after[k])], [])
    errors = [relative(after[p + ".weight"], before[p + ".weight"].double() + d)
              for p, d in total.items()]
    checks.at_most(f"{name}: W + sum of w s B A", max(errors), 1e-7)


def half_merge(args, checks, work, rng):
    """A bf16 base keeps its type; each weight is rounded once."""
    import torch
    from safetensors.torch import load_file
    base = work / "base-bf16"
    common.make_model(rng, common.Family("bf16", save_dtype="bfloat16"), base)
    wrapped, folders = two_adapters(work, base, rng, (8, 4), "bf16")
    parts = [deltas(wrapped, "default")]
    output = work / "into-bf16"
    common.lori(args, "merge", "--into", base, "--adapter", folders[0], "--output", output)
    before = load_file(str(base / "model.safetensors"))
    after = load_file(str(output / "model.safetensors"))
    checks.equal("bf16 base: same tensors and types", {k: v.dtype for k, v in after.items()},
                 {k: v.dtype for k, v in before.items()})
    wrong = total = 0
    for path, delta in parts[0].items():
        exact = (before[path + ".weight"].double() + delta).to(torch.bfloat16)
        wrong += int((exact != after[path + ".weight"]).sum())
        total += exact.numel()
    # f32 sums differ from the double sum only next to a rounding boundary.
    checks.at_most("bf16 base: weights not rounded once from the exact sum",
                   wrong / total, 1e-3)


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0])
    checks = common.Checks()
    with common.Work(args) as work:
        for name, family in small_families(common.new_rng(args, "families")).items():
            rng = common.new_rng(args, name)
            base = work / name
            config = common.make_model(rng, family, base)
            batch = common.random_batch(rng, config.vocab_size, [43, 61, 37, 5])
            if name == "llama":
                theirs_here(args, checks, work, base, batch, rng)
                enlarged_vocabulary(args, checks, work, base, batch, rng)
                adapter_merges(args, checks, work, base, batch, rng)
            ours_there(args, checks, work, base, batch, rng, name)
            base_merges(args, checks, work, base, batch, rng, name)
        half_merge(args, checks, work, common.new_rng(args, "bf16"))
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
