"""The real model: SmolLM2-135M-Instruct, imported from its GGUF.

Import: hashes of the weights against the recorded ones (computed with gguf and
with transformers' own conversion). Forward: ids, logits, NLL and greedy tokens
against recorded values and against transformers on our folder. Training: B
after 20 AdamW steps on GSM8K rows against transformers + peft, A frozen.
"""

import hashlib
import json
import os
import pathlib
import sys
import time

import common
from common import relative

# Over 30 layers in f32; the recorded values agree with f64 to 4.2e-5.
LOGITS_TOL = 1e-3
NLL_TOL = 1e-3
# An element of our products is one chain of up to 1,536 additions, torch sums
# blocks, and AdamW divides both by their size: seen, the median tensor of B
# differs by 2.2e-4, the worst of 210 by 1.04e-3.
B_TOL = 3e-3

GGUF_SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TENSOR_SHA = {
    "model.embed_tokens.weight":
        "3fd491c8066dd9dc1a2bf6796701526c82817d95c0ecabacdef3013c2b8bbbaa",
    "model.layers.0.self_attn.q_proj.weight":
        "54b377bbfa2deab945dfdba7fb59e0ca3eb74329358bd1b53b635b3ff37c1a56",
    "model.layers.0.self_attn.k_proj.weight":
        "814d239237d0643a10d9468d42e617b687ef032f85ad617389de27cf27f6fd34",
    "model.layers.0.mlp.down_proj.weight":
        "0b78b2226f740ed5594510ed990ea6c2846a6a889ab07cf251e4a489df1d75b0",
    "model.norm.weight":
        "3b87f8e27335e67fc08f159cabfd2d18f205d6c5b225a6f978153552bf01d559",
}
ALL_SHA = {"f32": "1e7c8a1c726e693f3ef812fec44c0efdf79020fe1e36d5cd8a07e0341da3e3aa",
           "bf16": "5d9bacfb6e704b2142088ab0e2548bc0de0a6b3a3179fcde6595ff2a6b30c1ec"}

QUESTION = "What is the capital of France?"
CHAT_IDS = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28,
            7018, 411, 407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282,
            4649, 47, 2, 198, 1, 520, 9531, 198]
CHAT_TOP = [(504, 25.325386), (60, 25.243284), (15319, 24.942411), (2219, 24.401672),
            (7026, 24.314631)]
CHAT_TOP_BF16 = [(504, 25.359911), (60, 25.261616), (15319, 24.942863),
                 (2219, 24.420124), (7026, 24.323765)]
CHAT_LSE = 27.208095
GREEDY = [504, 3575, 282, 4649, 314, 7042, 30, 2, 198, 2, 1, 9690, 198, 2, 198, 1, 4093,
          198, 57, 5248, 3946, 288, 7198, 253]
TEXTS = {  # text: (ids, sum of NLL, each NLL or None)
    "The quick brown fox jumps over the lazy dog.": (
        [504, 2365, 6354, 16438, 27003, 690, 260, 23790, 2767, 30], 36.10492,
        [14.30891, 6.27650, 1.41589, 7.04196, 0.00502, 2.69593, 2.47587, 0.11174, 1.77310]),
    "The capital of France is Paris, and 2 + 2 = 4.": (
        [504, 3575, 282, 4649, 314, 7042, 28, 284, 216, 34, 1232, 216, 34, 446, 216, 36,
         30], 33.47928, None),
}
NEXT = {  # text: (ids, top logits at the last position, log-sum-exp or None)
    "The capital of France is": (
        [504, 3575, 282, 4649, 314],
        [(7042, 17.371262), (260, 14.888595), (4528, 13.244980), (2250, 13.009464),
         (1315, 12.951519)], 17.629344),
    "If 3  apples cost 12 dollars,\n\n5 apples cost": (
        [1937, 216, 35, 216, 13855, 1708, 216, 33, 34, 8358, 28, 1116, 37, 13855, 1708],
        [(216, 25.004326)], None),
}


# ---- import ----------------------------------------------------------------

def raw(tensor):
    import torch
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.contiguous().numpy().tobytes()


def check_import(args, checks, work, gguf):
    from safetensors.torch import load_file
    folders = {}
    for dtype in ("f32", "bf16"):
        folder = folders[dtype] = work / f"smollm2-{dtype}"
        if not folder.exists():  # with --keep
            common.lori(args, "import", gguf, folder, "--dtype", dtype)
        weights = load_file(str(folder / "model.safetensors"))
        checks.equal(f"import {dtype}: tensors", len(weights), 272)
        total = hashlib.sha256()
        for name in sorted(weights):
            total.update(raw(weights[name]))
        checks.equal(f"import {dtype}: sha256 of all tensors", total.hexdigest(),
                     ALL_SHA[dtype])
        if dtype == "f32":
            for name, want in TENSOR_SHA.items():
                checks.equal(f"import f32: sha256 of {name}",
                             hashlib.sha256(raw(weights[name])).hexdigest(), want)
    return folders


# ---- forward ---------------------------------------------------------------

def check_top(checks, name, report, want, lse=None):
    checks.equal(f"{name}: the {len(want)} best ids",
                 [t["id"] for t in report["top"]][:len(want)], [i for i, _ in want])
    worst = max(abs(t["logit"] - w) for t, (_, w) in zip(report["top"], want))
    checks.at_most(f"{name}: their logits", worst, LOGITS_TOL)
    if lse is not None:
        checks.at_most(f"{name}: log-sum-exp", abs(report["logsumexp"] - lse), LOGITS_TOL)


def check_forward(args, checks, folders):
    words = ["--model", folders["f32"], "--dtype", "f32", "--json"]

    def score(*more, model=folders["f32"]):
        return common.lori(args, "score", "--model", model, "--dtype", "f32", "--json", *more)

    for text, (ids, total, each) in TEXTS.items():
        report = score("--text", text)
        checks.equal(f"score {text!r}: ids", report["ids"], ids)
        checks.at_most(f"score {text!r}: sum of NLL", abs(report["nll"] - total), NLL_TOL)
        if each:
            worst = max(abs(-ours - want) for ours, want in zip(report["logprobs"], each))
            checks.at_most(f"score {text!r}: NLL of each", worst, NLL_TOL)
    for text, (ids, top, lse) in NEXT.items():
        report = score("--text", text, "--top", len(top))
        checks.equal(f"score {text!r}: ids", report["ids"], ids)
        check_top(checks, f"score {text!r}", report, top, lse)
    chat = ",".join(map(str, CHAT_IDS))
    check_top(checks, "chat prompt", score("--ids", chat, "--top", 5), CHAT_TOP, CHAT_LSE)
    check_top(checks, "chat prompt, weights rounded to bf16",
              score("--ids", chat, "--top", 5, model=folders["bf16"]), CHAT_TOP_BF16)

    generate = ["generate", *words, "--max-new-tokens", 24]
    with checks.part("generate --chat"):
        stopped = common.lori(args, *generate, "--prompt", QUESTION, "--chat")
        checks.equal("generate --chat: prompt tokens", stopped["prompt_tokens"],
                     len(CHAT_IDS))
        checks.equal("generate --chat: ids until the end of the turn", stopped["ids"],
                     GREEDY[:8])
        checks.equal("generate --chat: text", stopped["text"].strip(),
                     "The capital of France is Paris.")
    on = common.lori(args, *generate, "--ids", chat, "--ignore-eos")
    checks.equal("generate: 24 greedy ids past the end", on["ids"], GREEDY)


def check_against_transformers(args, checks, work, folders):
    """Every logit of a packed batch; bf16 by its error against f32."""
    import torch
    rng = common.new_rng(args, "batch")
    sequences = [CHAT_IDS + GREEDY, *(ids for ids, _, _ in TEXTS.values())]
    batch = common.Batch(sequences, [1] * len(sequences), None)
    batch.weight = torch.tensor([rng.uniform(0.5, 1.5) for _ in batch.rows()])
    with torch.no_grad():
        exact = common.torch_logits(common.load_model(folders["f32"], torch.float32), batch)
        loss = common.torch_loss(exact, batch)
    ours = common.probe_model(args, work, folders["f32"], batch)
    checks.at_most("transformers f32: every logit",
                   float((ours["logits"].double() - exact.double()).abs().max()), LOGITS_TOL)
    checks.at_most("transformers f32: loss", common.relative_number(ours["loss"], loss), 1e-5)
    with torch.no_grad():
        # f32 arithmetic on the weights that bf16 arithmetic sees
        exact = common.torch_logits(common.load_model(folders["bf16"], torch.float32), batch)
        theirs = common.torch_logits(common.load_model(folders["bf16"], torch.bfloat16), batch)
    ours = common.probe_model(args, work, folders["bf16"], batch, dtype="bf16")
    checks.at_most("bf16 logits, error in torch-bf16's own",
                   relative(ours["logits"], exact) / relative(theirs, exact), 1.5)


# ---- training --------------------------------------------------------------

# Adam's first update is the gradient's sign: of 1.2 million entries some 40
# have a gradient as small as the noise of either side's float32 sums (4e-9,
# measured against float64), and one such entry alone is 3e-3 of a tensor. As
# Hugging Face's warm-up begins at 0, the first update that counts is one whose
# moments hold two gradients, and the comparison is well-conditioned.
STEPS, WARMUP, BATCH, LR, RANK, ALPHA = 20, 4, 4, 5e-4, 8, 20


def generated_problems(rng):
    """Where GSM8K is not at hand: problems of its shape."""
    while True:
        name, thing = rng.choice(["Ana", "Ben", "Cleo"]), rng.choice(["books", "eggs", "coins"])
        a, b, c = (rng.randrange(2, 60) for _ in range(3))
        yield {"question": f"{name} has {a} {thing} and buys {b} bags of {c} {thing} each. "
                           f"How many {thing} does {name} have now?",
               "answer": f"The bags hold {b} * {c} = {b * c} {thing}.\n{name} has {a} + {b * c}"
                         f" = {a + b * c} {thing} now.\n#### {a + b * c}"}


def problems(args, data):
    path = pathlib.Path(data) / "gsm8k" / "train.jsonl"
    rng = common.new_rng(args, "problems")
    if not path.exists():
        print(f"     {path} is not there: training on generated problems instead")
        return "generated", generated_problems(rng)
    lines = path.read_text().splitlines()
    rng.shuffle(lines)
    return "GSM8K", map(json.loads, lines)


def tokenized(folder, source, n, longest):
    """[(ids, labels)] of the first n short enough, the prompt without loss."""
    import tokenizers
    tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for row in source:
        prompt = tok.encode("Question: " + row["question"] + "\nAnswer:").ids
        answer = tok.encode(" " + row["answer"]).ids + [2]
        if len(prompt) + len(answer) <= longest:
            rows.append((prompt + answer, [-100] * len(prompt) + answer))
        if len(rows) == n:
            return rows
    raise RuntimeError("too few rows of that length")


def train_ours(args, work, folder, rows):
    path = work / "gsm8k-tokens.jsonl"
    path.write_text("".join(json.dumps({"input_ids": i, "labels": l}) + "\n"
                            for i, l in rows))
    recipe = {
        "model_name_or_path": str(folder), "train_file": str(path), "dtype": "f32",
        "output_dir": str(work / "smollm2-b20"), "overwrite_output_dir": True,
        "method": "lori", "lora_rank": RANK, "lora_alpha": ALPHA, "lori_a_seed": args.seed,
        "learning_rate": LR, "lr_scheduler_type": "constant", "warmup_steps": WARMUP,
        "max_grad_norm": 1.0, "clip_scope": "global", "loss_reduction": "token_mean",
        "shuffle": False, "per_device_train_batch_size": BATCH, "max_steps": STEPS,
        "max_seq_length": 512}
    source = work / "smollm2-b20.yaml"
    source.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in recipe.items()))
    common.lori(args, "train", source)
    return work / "smollm2-b20"


def train_theirs(folder, adapter, rows):
    """peft over our folder, our A, B from zero. (loss of the first rows before and
    after, {path: B}, {path: A})"""
    import peft
    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    wrapped = peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    trained, a = {}, {}
    for key, p in wrapped.named_parameters():
        path = key.removeprefix("base_model.model.").split(".lora_")[0]
        p.requires_grad_(".lora_B." in key)
        if ".lora_B." in key:
            p.data.zero_()
            trained[path] = p
        elif ".lora_A." in key:
            a[path] = p
    optimizer = torch.optim.AdamW(trained.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=0.0)
    schedule = transformers.get_scheduler("constant_with_warmup", optimizer, WARMUP, STEPS)

    def loss_of(step):
        part = rows[step * BATCH:(step + 1) * BATCH]
        width = max(len(ids) for ids, _ in part)
        ids, labels, mask = (torch.full((BATCH, width), fill) for fill in (0, -100, 0))
        for i, (row, label) in enumerate(part):
            ids[i, :len(row)] = torch.tensor(row)
            labels[i, :len(row)] = torch.tensor(label)
            mask[i, :len(row)] = 1
        logits = wrapped(input_ids=ids, attention_mask=mask, use_cache=False).logits
        # In double, as common.torch_nll tells: torch's float32 one is the
        # largest error there is, and Adam makes 5e-3 of it in 20 steps.
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).double(), labels[:, 1:].flatten())

    wrapped.eval()  # no dropout anyway
    first = None
    for step in range(STEPS):
        loss = loss_of(step)
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        again = float(loss_of(0))
    return first, again, {k: p.detach() for k, p in trained.items()}, a


def check_training(args, checks, work, folder, data):
    import torch
    from safetensors.torch import load_file
    kind, source = problems(args, data)
    rows = tokenized(folder, source, STEPS * BATCH, longest=192)
    start = time.monotonic()
    adapter = train_ours(args, work, folder, rows)
    middle = time.monotonic()
    ours = load_file(str(adapter / "adapter_model.safetensors"))
    first, again, theirs, a = train_theirs(folder, adapter, rows)
    end = time.monotonic()
    print(f"     {STEPS} steps of {BATCH} {kind} rows, {sum(len(i) for i, _ in rows)} tokens: ours "
          f"{middle - start:.0f} s, torch f32 {end - middle:.0f} s; loss of the first "
          f"rows {first:.4f} -> {again:.4f}")
    # Of the same rows: those of the last step may be harder than the first's.
    checks.at_most("20 steps: torch's own loss fell", again, 0.98 * first)
    key = "base_model.model.{}.lora_{}.weight"
    checks.equal("20 steps: A is untouched",
                 [k for k in a if not torch.equal(ours[key.format(k, "A")], a[k].detach())], [])
    errors = {k: relative(ours[key.format(k, "B")], theirs[k]) for k in theirs}
    checks.equal("20 steps: tensors", len(errors), 210)
    name, worst = max(errors.items(), key=lambda item: item[1])
    checks.at_most(f"20 steps on {kind} rows: B, worst of {len(errors)} tensors, {name}",
                   worst, B_TOL)
    error = sum(float((ours[key.format(k, "B")] - theirs[k]).double().square().sum())
                for k in theirs)
    whole = sum(float(v.double().square().sum()) for v in theirs.values())
    print(f"     median error of a tensor {sorted(errors.values())[len(errors) // 2]:.2g}, "
          f"of all of B {(error / whole) ** 0.5:.2g}")


def default_gguf():
    cache = os.environ.get("LORI_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lori")
    return os.path.join(cache, "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def main():
    common.check_versions()
    args = common.parse_args(
        __doc__.splitlines()[0],
        gguf=(os.environ.get("LORI_SMOLLM2") or default_gguf(),
              "the GGUF; tools/get_smollm2.sh fetches it"),
        data=(os.environ.get("LORI_DATA") or str(common.ROOT.parent / "shared" / "data"),
              "folder with gsm8k/train.jsonl"),
        only=("", "import, forward or train: that part alone (import always runs)"))
    checks = common.Checks()
    if not os.path.exists(args.gguf):
        sys.exit(f"{args.gguf}: no such file; run tools/get_smollm2.sh")
    checks.equal("sha256 of the GGUF",
                 hashlib.sha256(pathlib.Path(args.gguf).read_bytes()).hexdigest(), GGUF_SHA)
    with common.Work(args) as work:
        folders = check_import(args, checks, work, args.gguf)
        if args.only in ("", "forward"):
            check_forward(args, checks, folders)
            check_against_transformers(args, checks, work, folders)
        if args.only in ("", "train"):
            check_training(args, checks, work, folders["f32"], args.data)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
