"""LoRI-D's training step with transformers + peft, to be compared with ours.

SmolLM2 in bf16, LoRA on the seven linears with A frozen (B alone trains),
AdamW; each batch padded to its longest row, rows in file order: what a user of
these libraries writes. Prints one JSON line: median useful tokens a second
over the steps, losses, peak resident memory.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def batches(path, size, steps):
    import torch
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    for step in range(steps):
        part = rows[step * size:(step + 1) * size]
        width = max(len(row["input_ids"]) for row in part)
        ids, labels, mask = (torch.full((size, width), fill) for fill in (0, -100, 0))
        for i, row in enumerate(part):
            n = len(row["input_ids"])
            ids[i, :n] = torch.tensor(row["input_ids"])
            labels[i, :n] = torch.tensor(row["labels"])
            mask[i, :n] = 1
        yield {"input_ids": ids, "labels": labels, "attention_mask": mask}


def make_model(args):
    import peft
    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    config = peft.LoraConfig(
        r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                        "down_proj"])
    wrapped = peft.get_peft_model(model, config)
    wrapped.train()
    for name, p in wrapped.named_parameters():
        p.requires_grad_(".lora_B." in name)
    return wrapped, [p for p in wrapped.parameters() if p.requires_grad]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True, help="JSONL of input_ids, labels")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()

    import torch
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model, trained = make_model(args)
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.0)
    rates, losses = [], []
    for batch in batches(args.rows, args.batch, args.steps):
        start = time.perf_counter()
        loss = model(**batch, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        useful = int(batch["attention_mask"].sum())  # as ours counts: no padding
        rates.append(useful / (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_s": statistics.median(rates), "rates": rates,
                      "losses": losses, "rss_peak_bytes": peak,
                      "trained": sum(p.numel() for p in trained)}))


if __name__ == "__main__":
    main()
