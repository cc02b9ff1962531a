"""Whole training runs of `lori train` on random models against torch.

The other side is a loop over peft's model with torch.optim.AdamW and
transformers' schedules, from the same start, on the same rows in the same
order: methods lori (dense and sparse) and lora, both reductions of the loss,
both clippings, accumulation, weight decay, warm-up, rsLoRA, chosen targets.
"""

import json
import sys

import common
from common import relative

# f32 on both sides for a dozen steps; 1e-5 is what is seen.
TENSOR_TOL = 1e-3
STEPS = 12


def cases():
    """{name: recipe keys}; alpha != 2r in all of them."""
    return {
        "lori dense": dict(lora_rank=8, lora_alpha=20, max_grad_norm=0.3),
        "lori, accumulation, decay, linear": dict(
            lora_rank=6, lora_alpha=9, gradient_accumulation_steps=3, weight_decay=0.1,
            lr_scheduler_type="linear", warmup_steps=3, max_grad_norm=0.5),
        "lori, example_sum, per_tensor": dict(
            lora_rank=8, lora_alpha=20, loss_reduction="example_sum", clip_scope="per_tensor",
            max_grad_norm=0.2, warmup_steps=4),
        "lora": dict(method="lora", lora_rank=4, lora_alpha=10, max_grad_norm=0.3,
                     weight_decay=0.05),
        "lora, rslora, two targets": dict(
            method="lora", lora_rank=5, lora_alpha=7, use_rslora=True, max_grad_norm=0,
            lora_target_modules=["q_proj", "v_proj"], adam_beta1=0.8, adam_beta2=0.95,
            adam_epsilon=1e-5, warmup_steps=0),
        "no clipping, from an adapter": dict(
            lora_rank=8, lora_alpha=20, max_grad_norm=0, gradient_accumulation_steps=2),
    }


def random_rows(rng, vocab, n):
    rows = []
    for _ in range(n):
        ids = [rng.randrange(vocab) for _ in range(rng.randrange(6, 40))]
        prompt = rng.randrange(1, len(ids) - 1)
        rows.append((ids, [-100] * prompt + ids[prompt:]))
    return rows


def train_ours(args, work, base, rows, name, keys):
    data = work / f"{name}.jsonl"
    data.write_text("".join(json.dumps({"input_ids": i, "labels": l}) + "\n" for i, l in rows))
    recipe = dict(model_name_or_path=str(base), train_file=str(data), dtype="f32",
                  shuffle=False, max_steps=STEPS, per_device_train_batch_size=3,
                  learning_rate=2e-3, lr_scheduler_type="constant",
                  output_dir=str(work / name), lori_a_seed=args.seed, logging_steps=1,
                  # Adam's first update is a bare sign, which noise decides where
                  # a gradient is nearly zero: warm-up leaves that update out.
                  warmup_steps=2)
    recipe.update(keys)
    if "adapter_name_or_path" in recipe or "lori_mask_path" in recipe:
        del recipe["lori_a_seed"]  # these bring their A
    path = work / f"{name}.yaml"
    path.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in recipe.items()))
    common.lori(args, "train", path)
    return work / name, recipe


def parameters(wrapped, method):
    """{file key: parameter} of what trains."""
    out = {}
    for key, p in wrapped.named_parameters():
        trains = ".lora_B." in key or (method == "lora" and ".lora_A." in key)
        p.requires_grad_(trains)
        if trains:
            out[key.replace(".default.", ".")] = p
    return out


def step_loss(wrapped, rows, recipe, total_targets, n_rows):
    """The micro batch's share of the step's loss."""
    batch = common.Batch([i for i, _ in rows],
                         [sum(x == -100 for x in l) for _, l in rows], None)
    nll = common.torch_nll(common.torch_logits(wrapped, batch), batch)
    if recipe.get("loss_reduction") == "example_sum":
        return nll.sum() / n_rows
    return nll.sum() / total_targets


def clip(trained, recipe):
    import torch
    norm = recipe.get("max_grad_norm", 1.0)
    if not norm:
        return
    if recipe.get("clip_scope") == "per_tensor":
        for p in trained.values():
            torch.nn.utils.clip_grad_norm_([p], norm)
    else:
        torch.nn.utils.clip_grad_norm_(list(trained.values()), norm)


def train_theirs(wrapped, rows, recipe, keep=None):
    """Trains in place; keep {file key: mask}. Returns {file key: tensor}."""
    import torch
    import transformers
    trained = parameters(wrapped, recipe.get("method", "lori"))
    optimizer = torch.optim.AdamW(
        trained.values(), lr=recipe["learning_rate"], eps=recipe.get("adam_epsilon", 1e-8),
        betas=(recipe.get("adam_beta1", 0.9), recipe.get("adam_beta2", 0.999)),
        weight_decay=recipe.get("weight_decay", 0.0))
    kind, warmup = recipe["lr_scheduler_type"], recipe.get("warmup_steps", 0)
    if kind == "constant" and warmup:
        kind = "constant_with_warmup"
    schedule = transformers.get_scheduler(kind, optimizer, warmup, STEPS)
    micro = recipe["per_device_train_batch_size"]
    per_step = micro * recipe.get("gradient_accumulation_steps", 1)
    for step in range(STEPS):
        part = rows[step * per_step:(step + 1) * per_step]
        targets = sum(x != -100 for _, l in part for x in l)
        optimizer.zero_grad()
        for at in range(0, per_step, micro):
            step_loss(wrapped, part[at:at + micro], recipe, targets, per_step).backward()
        if keep:
            for key, p in trained.items():
                p.grad *= keep[key]
        clip(trained, recipe)
        optimizer.step()
        schedule.step()
    return {key: p.detach() for key, p in trained.items()}


def peft_start(base, start, zero_b):
    """peft's model with the A (and B) of the folder `start`."""
    import peft
    import torch
    model = common.load_model(base, torch.float32)
    wrapped = peft.PeftModel.from_pretrained(model, str(start), is_trainable=True).eval()
    if zero_b:
        for key, p in wrapped.named_parameters():
            if ".lora_B." in key:
                p.data.zero_()
    return wrapped


def compare(checks, name, ours, theirs, before):
    checks.equal(f"{name}: trained tensors are all there",
                 [k for k in theirs if k not in ours], [])
    errors = {k: relative(ours[k], theirs[k]) for k in theirs}
    key, worst = max(errors.items(), key=lambda item: item[1])
    checks.at_most(f"{name}: worst of {len(errors)} tensors, "
                   f"{key.removeprefix('base_model.model.')}", worst, TENSOR_TOL)
    # Every tensor must have moved by far more than the tolerance.
    least = min(float((theirs[k] - before[k]).norm() / theirs[k].norm()) for k in theirs)
    checks.at_least(f"{name}: every tensor was trained", least, 10 * TENSOR_TOL)


def one_case(args, checks, work, base, rng, vocab, name, keys):
    from safetensors.torch import load_file
    keys = dict(keys)
    folder = name.replace(" ", "-").replace(",", "")
    rows = random_rows(rng, vocab, STEPS * 3 * keys.get("gradient_accumulation_steps", 1))
    method = keys.get("method", "lori")
    from_adapter = method == "lora" or "from an adapter" in name
    if from_adapter:  # A is trained: both sides start from peft's file
        import torch
        start = work / f"{folder}-start"
        common.random_lora(common.load_model(base, torch.float32), rng, keys["lora_rank"],
                           keys["lora_alpha"], targets=keys.get("lora_target_modules"),
                           use_rslora=keys.get("use_rslora", False)).save_pretrained(str(start))
        keys["adapter_name_or_path"] = str(start)
    ours_at, recipe = train_ours(args, work, base, rows, folder, keys)
    ours = load_file(str(ours_at / "adapter_model.safetensors"))
    wrapped = peft_start(base, start if from_adapter else ours_at, zero_b=not from_adapter)
    before = {k: p.detach().clone() for k, p in parameters(wrapped, method).items()}
    compare(checks, name, ours, train_theirs(wrapped, rows, recipe), before)
    return ours_at, recipe, rows


def sparse(args, checks, work, base, dense_at, recipe, rows):
    """LoRI-S after LoRI-D: the mask by the rule, then training under it."""
    import torch
    from safetensors.torch import load_file
    mask = work / "mask"
    common.lori(args, "mask", dense_at, mask, "--sparsity", "0.9")
    dense = load_file(str(dense_at / "adapter_model.safetensors"))
    b = {k: v for k, v in dense.items() if ".lora_B." in k}
    flat = torch.cat([v.abs().flatten() for v in b.values()])
    k = int((1 - 0.9) * flat.numel())
    threshold = flat.topk(k).values[-1]
    keep = {key: v.abs() >= threshold for key, v in b.items()}  # no ties in f32 noise
    ours_at, recipe = train_ours(args, work, base, rows, "sparse", {
        **recipe, "lori_phase": "sparse", "lori_mask_path": str(mask),
        "output_dir": str(work / "sparse"), "train_file": str(work / "sparse.jsonl")})
    ours = load_file(str(ours_at / "adapter_model.safetensors"))
    kept = sum(int(v.sum()) for v in keep.values())
    checks.equal("lori sparse: kept entries", kept, k)
    checks.equal("lori sparse: entries not kept are zero",
                 sum(int((ours[key][~m] != 0).sum()) for key, m in keep.items()), 0)
    checks.equal("lori sparse: A is the dense stage's",
                 [k for k in dense if ".lora_A." in k and not torch.equal(dense[k], ours[k])], [])
    wrapped = peft_start(base, ours_at, zero_b=True)
    theirs = train_theirs(wrapped, rows, recipe, keep)
    errors = {key: relative(ours[key], theirs[key]) for key, m in keep.items() if m.any()}
    key, worst = max(errors.items(), key=lambda item: item[1])
    checks.at_most(f"lori sparse: worst of {len(errors)} tensors, "
                   f"{key.removeprefix('base_model.model.')}", worst, TENSOR_TOL)


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0])
    checks = common.Checks()
    with common.Work(args) as work:
        rng = common.new_rng(args, "base")
        base = work / "base"
        family = common.Family("base", theta=500000.0, tied=rng.random() < 0.5,
                               scaling=common.llama3_scaling(rng, 8.0))
        config = common.make_model(rng, family, base)
        dense = None
        for name, keys in cases().items():
            rng = common.new_rng(args, name)
            with checks.part(name):
                done = one_case(args, checks, work, base, rng, config.vocab_size, name, keys)
                dense = dense or done
        with checks.part("lori sparse"):
            sparse(args, checks, work, base, *dense)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
