"""Generation against transformers: sampling's processors, greedy replies.

Processors: on random logits, what transformers' own list of LogitsProcessors
leaves (the list that its generate() builds, so the order is theirs too): the
same floats before the filters, the same survivors after them. Greedy: 64
tokens of SmolLM2 and of a random model of each family, f32.
"""

import json
import os
import pathlib
import shutil
import sys

import common

TOKENS = 64
CASES = 300
PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time"]
# Both sides choose the largest of logits that differ by f32 rounding (1e-5 of
# their range in oracle_model.py): a smaller lead than this decides nothing.
LEAD = 1e-4


# ---- processors --------------------------------------------------------------

def random_case(rng, torch):
    vocab = rng.choice([50, 300, 2000])
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(
        rng.randrange(2 ** 31))) * rng.choice([0.5, 2.0, 6.0])

    def maybe(value, off):
        return value if rng.random() < 0.5 else off

    return {
        "logits": logits.tolist(),
        "prompt": [rng.randrange(vocab) for _ in range(rng.randrange(1, 20))],
        "reply": [rng.randrange(vocab) for _ in range(rng.randrange(0, 12))],
        "stops": rng.sample(range(vocab), 2),
        "bias": maybe([[i, rng.uniform(-4, 4)] for i in rng.sample(range(vocab), 5)], []),
        "temperature": maybe(rng.uniform(0.3, 1.8), 1.0),
        "top_k": maybe(rng.randrange(1, vocab + 10), 0),
        "top_p": maybe(rng.uniform(0.05, 0.999), 1.0),
        "min_p": maybe(rng.uniform(0.001, 0.5), 0.0),
        "repetition_penalty": maybe(rng.uniform(0.6, 1.8), 1.0),
        "min_new_tokens": maybe(rng.randrange(1, 14), 0),
    }


def their_list(model, case):
    """(processors before the filters, the filters), as generate() has them."""
    import transformers
    from transformers.generation import logits_process
    options = {"do_sample": True, "eos_token_id": case["stops"],
               "temperature": case["temperature"], "top_k": case["top_k"],
               "top_p": case["top_p"],
               "repetition_penalty": case["repetition_penalty"]}
    if case["min_p"]:
        options["min_p"] = case["min_p"]
    if case["bias"]:
        options["sequence_bias"] = [[[i], b] for i, b in case["bias"]]
    if case["min_new_tokens"]:
        options["min_new_tokens"] = case["min_new_tokens"]
    config = transformers.GenerationConfig(**options)
    import torch
    config._eos_token_tensor = torch.tensor(case["stops"])
    every = model._get_logits_processor(
        generation_config=config, input_ids_seq_length=len(case["prompt"]),
        encoder_input_ids=None, prefix_allowed_tokens_fn=None,
        logits_processor=logits_process.LogitsProcessorList(), device="cpu")
    filters = [i for i, p in enumerate(every)
               if type(p).__name__ in ("TemperatureLogitsWarper", "TopKLogitsWarper",
                                       "TopPLogitsWarper", "MinPLogitsWarper")]
    cut = filters[0] if filters else len(every)
    assert filters == list(range(cut, len(every))), [type(p).__name__ for p in every]
    return every[:cut], every[cut:]


def check_processors(args, checks, work):
    import torch
    rng = common.new_rng(args, "processors")
    family = common.families(rng)[0]
    folder = work / "processors"
    common.make_model(rng, family, folder)
    model = common.load_model(folder, torch.float32)
    cases = [random_case(rng, torch) for _ in range(CASES)]
    source = work / "cases.json"
    source.write_text(json.dumps(cases))
    ours = json.loads(common.run([args.build / "probe_infer", source]).stdout)
    exact = sets = 0
    worst, close = 0.0, []
    for case, mine in zip(cases, ours):
        ids = torch.tensor([case["prompt"] + case["reply"]])
        scores = torch.tensor([case["logits"]], dtype=torch.float32)
        before, filters = their_list(model, case)
        for p in before:
            scores = p(ids, scores)
        got = torch.tensor([float("-inf") if x is None else x for x in mine["processed"]],
                           dtype=torch.float32)
        exact += bool(torch.equal(got, scores[0]))
        for p in filters:
            scores = p(ids, scores)
        p = torch.softmax(scores[0].double(), -1)
        want = {int(i) for i in (p > 0).nonzero()}
        if set(mine["ids"]) == want:
            sets += 1
            mass = torch.tensor(mine["p"], dtype=torch.float64)
            worst = max(worst, float((mass / p[mine["ids"]] - 1).abs().max()))
        else:
            close.append(sorted(want ^ set(mine["ids"])))
    checks.equal("processors: cases with the same floats", exact, CASES)
    # A cumulative sum of float32 there, of double here: a case in thousands may
    # differ by the one token at the very edge.
    checks.true("filters: cases with the same survivors",
                sets >= CASES - 1 and all(len(c) == 1 for c in close),
                f"{sets} of {CASES}, edges {close}")
    # logits / temperature are floats on both sides: 2^-24 of logits up to 80
    checks.at_most("filters: probabilities, relative", worst, 1e-5)


# ---- greedy -------------------------------------------------------------------

def their_greedy(model, ids):
    """Ids, and the lead of each over the second best."""
    import torch
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=TOKENS,
                             eos_token_id=None, pad_token_id=0, output_logits=True,
                             return_dict_in_generate=True)
    best = [torch.topk(step[0], 2).values for step in out.logits]
    return out.sequences[0, len(ids):].tolist(), [float(b[0] - b[1]) for b in best]


def check_greedy(args, checks, name, folder, model, ids):
    want, lead = their_greedy(model, ids)
    report = common.lori(args, "generate", "--model", folder, "--dtype", "f32", "--json",
                         "--ids", ",".join(map(str, ids)), "--ignore-eos", "--greedy",
                         "--max-new-tokens", TOKENS)
    got = report["ids"]
    same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), TOKENS)
    tie = same < TOKENS and lead[same] < LEAD
    checks.true(f"{name}: {TOKENS} greedy tokens", same == TOKENS or tie,
                f"{len(set(want))} different" + (f", tie at {same}" if tie else "")
                if same == TOKENS or tie else f"differ at {same}, lead {lead[same]:.3g}")


def check_families(args, checks, work, tokenizer):
    import torch
    rng = common.new_rng(args, "greedy")
    for family in common.families(rng):
        folder = work / f"greedy-{family.name}"
        config = common.make_model(rng, family, folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, folder / name)
        with checks.part(family.name):
            ids = [rng.randrange(3, config.vocab_size) for _ in range(rng.randrange(1, 90))]
            check_greedy(args, checks, family.name, folder,
                         common.load_model(folder, torch.float32), ids)


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0],
                             only=("", "processors or greedy: that part alone"))
    checks = common.Checks()
    with common.Work(args) as work:
        if args.only in ("", "processors"):
            check_processors(args, checks, work)
        if args.only in ("", "greedy"):
            import torch
            import transformers
            smol = pathlib.Path(work) / "smollm2"
            common.lori(args, "import", os.environ["LORI_SMOLLM2"], smol, "--dtype", "f32")
            check_families(args, checks, work, smol)
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(smol))
            model = common.load_model(smol, torch.float32)
            for text in PROMPTS:
                check_greedy(args, checks, f"SmolLM2 {text!r}", smol, model,
                             tokenizer(text)["input_ids"])
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
