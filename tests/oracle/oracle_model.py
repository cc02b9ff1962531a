"""Forward and backward of random models against transformers, peft, autograd.

Forward: f32 logits and loss of every family, `cpu` and `ref`. Backward: dA and
dB of every target. bf16: judged by the error against float64, beside torch's
own. The faults that such a comparison must be able to see are computed too,
on torch's side, and each must move the result by 50 tolerances.
"""

import copy
import math
import sys

import common
from common import of_range, relative, relative_number

# torch f32 against f64 is about 1.4e-6 of the range at these sizes; an f32
# program that sums in another order may double that a few times over.
LOGITS_TOL = 2e-5
LOSS_TOL = 1e-5
GRAD_TOL = 1e-4
# ref in f64 against torch in f64: what is left are rope angles that
# transformers computes in float32 (2^-24 of an angle of up to 130 radians).
DOUBLE_TOL = 1e-5
# Errors of bf16 in units of torch-bf16's own. Over all tensors together ours were
# 0.76 to 0.84 of torch's in the median of 500 drawn models and 1.11 at most; one
# tensor's ratio, whose gradient may come from a few rows, went up to 1.6.
BF16_RATIO = 1.25
BF16_TENSOR_RATIO = 3
VISIBLE = 50
# Families whose packing, schedules and older kernels are compared too.
THOROUGH = ("llama-3.2", "mistral")
# Kernels of older processors, and the flag of a processor that runs them.
OLDER = {"base": "sse4_2", "avx2": "avx2", "avx512": "avx512f"}


# ---- faults ----------------------------------------------------------------

def interleaved_rope(q, k, cos, sin, unsqueeze_dim=1):
    """Pairs (2j, 2j + 1), as GPT-J has them, instead of (j, j + D/2)."""
    import torch

    def turn(x):
        half = x.shape[-1] // 2
        c, s = (t.unsqueeze(unsqueeze_dim)[..., :half] for t in (cos, sin))
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * c - odd * s, odd * c + even * s), -1).flatten(-2)
    return turn(q), turn(k)


def tiled_kv(x, n_rep):
    """Query head h reads key head h % K instead of h / (H/K)."""
    return x.repeat(1, n_rep, 1, 1)


def fault_configs(config):
    """{name: config with the fault}"""
    out = {}

    def altered(name, **values):
        out[name] = copy.deepcopy(config)
        for key, value in values.items():
            setattr(out[name], key, value)

    rope = dict(config.rope_parameters)
    plain = rope["rope_type"] == "default"
    other = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    altered("rope scaling", rope_parameters={
        **(other if plain else {"rope_type": "default"}),
        "rope_theta": rope["rope_theta"]})
    altered("rope theta", rope_parameters={**rope, "rope_theta": 2 * rope["rope_theta"]})
    altered("epsilon 10x", rms_norm_eps=10 * config.rms_norm_eps)
    if getattr(config, "sliding_window", None):
        altered("window + 1", sliding_window=config.sliding_window + 1)
        altered("window - 1", sliding_window=config.sliding_window - 1)
    return out


def faulty_logits(kind, folder, config, batch):
    """Yields (fault, logits) of models that are wrong in one way."""
    import torch
    for name, wrong in fault_configs(config).items():
        model = common.load_model(folder, torch.float32, config=wrong)
        yield name, common.torch_logits(model, batch)
    model = common.load_model(folder, torch.float32)
    module = common.modeling(kind)
    with common.patched(module, apply_rotary_pos_emb=interleaved_rope):
        yield "rope pairing", common.torch_logits(model, batch)
    if config.num_attention_heads != config.num_key_value_heads:
        with common.patched(module, repeat_kv=tiled_kv):
            yield "head grouping", common.torch_logits(model, batch)


# ---- one family ------------------------------------------------------------

def forward(args, checks, work, folder, family, config, batch):
    import torch
    with torch.no_grad():
        model = common.load_model(folder, torch.float32)
        logits = common.torch_logits(model, batch)
        loss = common.torch_loss(logits, batch)
        with common.true_double(family.kind):
            double = common.load_model(folder, torch.float64)
            exact = common.torch_logits(double, batch)
        print(f"     {family.name}: torch f32 against f64 "
              f"{of_range(logits, exact):.2g} of the range")
        for name, wrong in faulty_logits(family.kind, folder, config, batch):
            checks.at_least(f"{family.name}: fault '{name}' is visible",
                            of_range(wrong, logits), VISIBLE * LOGITS_TOL)
        # In the NLL of each row: a random model's mean may stay by chance.
        nll = common.torch_nll(logits, batch)
        checks.at_least(f"{family.name}: fault 'label shift' is visible",
                        of_range(common.torch_nll(logits, batch, shift=0), nll),
                        VISIBLE * LOGITS_TOL)
    for backend in ("cpu", "ref"):
        ours = common.probe_model(args, work, folder, batch, backend=backend, dtype="f32")
        checks.at_most(f"{family.name}: f32 logits, {backend}",
                       of_range(ours["logits"], logits), LOGITS_TOL)
        checks.at_most(f"{family.name}: f32 NLL of every row, {backend}",
                       of_range(ours["nll"], nll), LOGITS_TOL)
        checks.at_most(f"{family.name}: f32 loss, {backend}",
                       relative_number(ours["loss"], loss), LOSS_TOL)
    ours = common.probe_model(args, work, folder, batch, backend="ref", dtype="f64")
    checks.at_most(f"{family.name}: f64 logits, ref",
                   of_range(ours["logits"], exact), DOUBLE_TOL)


def packing(args, checks, work, folder, family, batch, adapter):
    """One sequence at a time gives what the packed batch gives; schedules and
    thread counts give the same bits."""
    import torch
    base = common.probe_model(args, work, folder, batch, adapter, grad=True)
    alone = torch.cat([
        common.probe_model(args, work, folder, batch.single(s), adapter)["logits"]
        for s in range(len(batch.sequences))])
    checks.at_most(f"{family.name}: packed = one at a time",
                   of_range(alone, base["logits"]), 1e-6)
    runs = {"schedule 1": {"schedule": 1}, "schedule 2": {"schedule": 2},
            "1 thread": {"threads": 1}, "2 threads": {"threads": 2},
            "twice": {"repeat": 2}}
    for name, options in runs.items():
        ours = common.probe_model(args, work, folder, batch, adapter, grad=True, **options)
        differ = [k for k in base if k != "said" and not torch.equal(base[k], ours[k])]
        checks.equal(f"{family.name}: same bits, {name}", differ, [])


def worst(ours, theirs):
    """(name, error) of the tensor with the largest relative Frobenius error."""
    errors = {k: relative(ours[k], theirs[k]) for k in theirs}
    return max(errors.items(), key=lambda item: item[1])


def backward(args, checks, work, folder, family, batch):
    import torch
    rng = common.new_rng(args, family.name, "adapter")
    r = rng.choice([4, 6, 8])
    model = common.load_model(folder, torch.float32)
    wrapped = common.random_lora(model, rng, r=r, alpha=2.5 * r)
    adapter = work / f"adapter-{family.name}"
    wrapped.save_pretrained(str(adapter))
    grads, loss, logits = common.torch_gradients(wrapped, batch)
    check_faults(checks, family, wrapped, batch, grads, logits)
    for backend in ("cpu", "ref"):
        ours = common.probe_model(args, work, folder, batch, adapter, grad=True,
                                  backend=backend)
        if not checks.equal(f"{family.name}: gradients of every target, {backend}",
                            sorted(k for k in ours if k.endswith(".grad")),
                            sorted(grads)):
            continue
        checks.at_most(f"{family.name}: f32 logits with adapter, {backend}",
                       of_range(ours["logits"], logits), LOGITS_TOL)
        checks.at_most(f"{family.name}: f32 loss with adapter, {backend}",
                       relative_number(ours["loss"], loss), LOSS_TOL)
        for letter in "BA":
            part = {k: v for k, v in grads.items() if f"lora_{letter}" in k}
            name, error = worst(ours, part)
            checks.at_most(f"{family.name}: f32 d{letter} of {len(part)} targets, "
                           f"{backend}, worst {name}", error, GRAD_TOL)
    return adapter


def check_faults(checks, family, wrapped, batch, grads, logits):
    """alpha/r taken for 2, and labels off by one: gradients must show it."""
    import peft
    layers = [m for m in wrapped.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    right = layers[0].scaling["default"]
    for m in layers:
        m.scaling["default"] = 2.0
    wrong, _, wrong_logits = common.torch_gradients(wrapped, batch)
    for m in layers:
        m.scaling["default"] = right
    checks.at_least(f"{family.name}: fault 'scale' is visible",
                    of_range(wrong_logits, logits), VISIBLE * LOGITS_TOL)
    shifted, _, _ = common.torch_gradients(wrapped, batch, shift=0)
    for name, faulty in (("scale", wrong), ("label shift", shifted)):
        least = min(relative(faulty[k], grads[k]) for k in grads)
        checks.at_least(f"{family.name}: fault '{name}' is visible in every gradient",
                        least, VISIBLE * GRAD_TOL)


def older_kernels():
    """The sets of OLDER that this machine runs."""
    for isa, flag in OLDER.items():
        if flag in common.cpu_flags():
            yield isa
        else:
            print(f"     {isa}: not on this machine")


def pooled(errors):
    """Root mean square of {name: relative error}."""
    return math.sqrt(sum(e * e for e in errors.values()) / len(errors))


def half(args, checks, work, family):
    """bf16: our error against float64, in units of torch-bf16's own."""
    import peft
    import torch
    rng = common.new_rng(args, family.name, "bf16")
    folder = work / f"{family.name}-bf16"
    family = copy.copy(family)
    family.save_dtype = "bfloat16"
    config = common.make_model(rng, family, folder)
    batch = common.random_batch(rng, config.vocab_size, lengths(rng))
    adapter = work / f"adapter-{family.name}-bf16"
    source = common.load_model(folder, torch.float32)
    common.random_lora(source, rng, r=8, alpha=20).save_pretrained(str(adapter))

    def gradients(dtype):
        model = common.load_model(folder, dtype)
        wrapped = peft.PeftModel.from_pretrained(model, str(adapter))
        if dtype == torch.float64:
            wrapped.to(torch.float64)  # the adapter; the base is there already
        return common.torch_gradients(wrapped, batch)

    with common.true_double(family.kind):
        exact, _, exact_logits = gradients(torch.float64)
    theirs, _, their_logits = gradients(torch.bfloat16)
    for isa in ["", *(older_kernels() if family.name in THOROUGH else ())]:
        options = {"isa": isa} if isa else {}
        ours = common.probe_model(args, work, folder, batch, adapter, grad=True,
                                  dtype="bf16", **options)
        name = f"{family.name}{isa and ', ' + isa}: bf16"
        checks.at_most(f"{name} logits, error in torch-bf16's own",
                       relative(ours["logits"], exact_logits)
                       / relative(their_logits, exact_logits), BF16_RATIO)
        for letter in "BA":
            part = [k for k in exact if f"lora_{letter}" in k]
            our_errors = {k: relative(ours[k], exact[k]) for k in part}
            their_errors = {k: relative(theirs[k], exact[k]) for k in part}
            checks.at_most(f"{name} d{letter} of {len(part)} targets, error in "
                           "torch-bf16's own",
                           pooled(our_errors) / pooled(their_errors), BF16_RATIO)
            ratio, k = max((our_errors[k] / their_errors[k], k) for k in part)
            checks.at_most(f"{name} d{letter}, error in torch-bf16's own, worst {k}",
                           ratio, BF16_TENSOR_RATIO)


def instruction_sets(args, checks, work, folder, batch, adapter):
    """Kernels of older processors give the same answer to tolerance in f32."""
    import peft
    import torch
    wrapped = peft.PeftModel.from_pretrained(
        common.load_model(folder, torch.float32), str(adapter)).eval()
    grads, _, logits = common.torch_gradients(wrapped, batch)
    for isa in older_kernels():
        ours = common.probe_model(args, work, folder, batch, adapter, grad=True, isa=isa)
        checks.at_most(f"{isa}: f32 logits", of_range(ours["logits"], logits), LOGITS_TOL)
        checks.at_most(f"{isa}: f32 gradients", worst(ours, grads)[1], GRAD_TOL)


def lengths(rng):
    """At least three sequences longer than any window that is drawn."""
    return [rng.randrange(40, 130) for _ in range(3)] + [rng.randrange(4, 16)]


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0], only=(
        "", "forward, backward or bf16: that part alone"))
    checks = common.Checks()
    with common.Work(args) as work:
        for family in common.families(common.new_rng(args, "families")):
            rng = common.new_rng(args, family.name)
            folder = work / family.name
            config = common.make_model(rng, family, folder)
            batch = common.random_batch(rng, config.vocab_size, lengths(rng))
            if args.only in ("", "forward"):
                forward(args, checks, work, folder, family, config, batch)
            if args.only in ("", "backward"):
                adapter = backward(args, checks, work, folder, family, batch)
                if family.name in THOROUGH:
                    packing(args, checks, work, folder, family, batch, adapter)
                    instruction_sets(args, checks, work, folder, batch, adapter)
            if args.only in ("", "bf16"):
                half(args, checks, work, family)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
