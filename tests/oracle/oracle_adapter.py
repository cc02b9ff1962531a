"""Adapter folders against peft: which modules, which ranks, which scales.

What oracle_exchange.py cannot reach through the program: drawn configurations.
Ours there: uneven ranks and alphas, layers left out, rsLoRA, 16-bit tensors;
peft must load exactly our modules with our values and complain of nothing.
Theirs here: drawn targets (lists, patterns, "all-linear", exclusions, layer
filters, rank and alpha patterns); what peft reloads from its own folder is the
truth, and where peft refuses its own folder, so must we.
"""

import json
import sys
import warnings

import common

LAYERS = 3
SHAPES = {  # name: (in, out), of the model below
    "self_attn.q_proj": (24, 32), "self_attn.k_proj": (24, 16),
    "self_attn.v_proj": (24, 16), "self_attn.o_proj": (32, 24),
    "mlp.gate_proj": (24, 40), "mlp.up_proj": (24, 40),
    "mlp.down_proj": (40, 24),
}


def make_base():
    import transformers
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=24, intermediate_size=40,
        num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=64)
    return transformers.LlamaForCausalLM(config).eval()


def read_ours(args, folders):
    out = common.run([args.build / "probe_adapter", "read", *folders]).stdout
    return [json.loads(line) for line in out.splitlines()]


def loaded(wrapped):
    """{path: (in, out, rank, scale, A, B)} of what peft adapts."""
    found = {}
    for name, module in wrapped.base_model.model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        a = module.lora_A["default"].weight.detach()
        b = module.lora_B["default"].weight.detach()
        found[name] = (a.shape[1], b.shape[0], a.shape[0],
                       module.scaling["default"], a, b)
    return found


def load_theirs(folder):
    """(what peft loads, its warnings); the base is fresh each time."""
    import peft
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wrapped = peft.PeftModel.from_pretrained(make_base(), str(folder))
    said = [str(w.message) for w in said
            if any(word in str(w.message).lower()
                   for word in ("missing", "unexpected", "pattern", "adapter"))]
    return loaded(wrapped), said


# ---- ours there ------------------------------------------------------------

def draw_spec(rng):
    sites = []
    names = rng.sample(sorted(SHAPES), rng.randint(1, 7))
    uneven_layers = rng.random() < 0.4
    by_name = {n: (rng.randint(1, 9), rng.choice([1, 7, 16, 2.5, 0.75]))
               for n in names}
    style = rng.choice(["same", "by name", "by site"])
    for layer in range(LAYERS):
        for name in names:
            # The last layer stays: an adapter that ends below it cannot be
            # told from one of a shallower base (peft adds zeros and warns).
            last = (layer, name) == (LAYERS - 1, names[0])
            if uneven_layers and not last and rng.random() < 0.4:
                continue
            rank, alpha = by_name[names[0] if style == "same" else name]
            if style == "by site" and rng.random() < 0.5:
                rank, alpha = rng.randint(1, 9), rng.choice([3, 5.5])
            wide, out = SHAPES[name]
            sites.append({"path": f"model.layers.{layer}.{name}", "in": wide,
                          "out": out, "rank": rank, "alpha": alpha})
    rng.shuffle(sites)
    return {"seed": rng.randrange(2 ** 40), "rslora": rng.random() < 0.4,
            "init_a": rng.random() < 0.5,
            "dtype": rng.choice(["F32", "F32", "BF16", "F16"]), "sites": sites}


def ours_there(args, checks, work, rng, trials):
    bad = []
    for trial in range(trials):
        spec = draw_spec(rng)
        folder, path = work / f"ours{trial}", work / f"spec{trial}.json"
        path.write_text(json.dumps(spec))
        common.run([args.build / "probe_adapter", "make", path, folder])
        theirs, said = load_theirs(folder)
        want = {}
        for s in spec["sites"]:
            root = s["rank"] ** 0.5 if spec["rslora"] else s["rank"]
            want[s["path"]] = (s["in"], s["out"], s["rank"], s["alpha"] / root)
        got = {k: v[:4] for k, v in theirs.items()}
        mine = read_ours(args, [folder])[0]
        # An F16 file's A is put back exactly by us, not by peft: 2^-11 of
        # entries below 0.5, of which there are at most 9 * 40.
        slack = 9 * 40 * 2 ** -12 if spec["dtype"] == "F16" else 1e-9
        sums = all(abs(theirs[s["path"]][4].double().sum().item() - s["a"]) <= slack
                   and abs(theirs[s["path"]][5].double().sum().item() - s["b"]) < 1e-9
                   for s in mine["sites"]) if set(got) == set(want) else False
        if got != want or said or not sums:
            bad.append((trial, spec["rslora"], said, sums,
                        sorted(set(got) ^ set(want))))
    checks.true(f"ours in peft: {trials} drawn adapters load exactly, without a word",
                not bad, str(bad[:2]) if bad else "")


# ---- theirs here -----------------------------------------------------------

LAST = [n.split(".")[1] for n in SHAPES]


def draw_targets(rng):
    kind = rng.randrange(7)
    if kind == 0:
        return "all-linear"
    if kind == 1:
        return rng.choice([r".*\.(q|v)_proj", r"model\.layers\.[02]\.mlp\..*",
                           r".*(?<!k)_proj", r"model\.layers\.\d\.self_attn\.q_proj",
                           r".*\.1\..*_proj|.*\.up_proj"])
    if kind == 2:
        return None
    if kind == 3:
        return rng.sample(sorted(SHAPES), rng.randint(1, 4))
    if kind == 4:
        return [f"model.layers.{rng.randrange(LAYERS)}.{n}"
                for n in rng.sample(sorted(SHAPES), rng.randint(1, 4))] + ["o_proj"]
    return rng.sample(LAST, rng.randint(1, 7))


def draw_pattern(rng, values):
    keys = ["q_proj", "up_proj", "proj", r"layers.1.*", "mlp.gate_proj",
            r"^model\.layers\.0\.self_attn\.k_proj", r".*\.2\.mlp\.down_proj",
            "model.layers.2.self_attn.v_proj", r"^layers.0", r".*o_proj"]
    return {k: rng.choice(values) for k in rng.sample(keys, rng.randint(0, 3))}


def draw_options(rng):
    o = {"r": rng.randint(1, 8), "lora_alpha": rng.choice([1, 7, 16, 2.5]),
         "use_rslora": rng.random() < 0.3, "target_modules": draw_targets(rng)}
    if rng.random() < 0.3:
        o["exclude_modules"] = rng.choice(
            [["q_proj"], ["self_attn.v_proj", "o_proj"], r".*\.0\..*", r"layers\.0",
             ["model.layers.1.mlp.up_proj"]])
    if not isinstance(o["target_modules"], str) and rng.random() < 0.4:
        o["layers_to_transform"] = rng.choice([0, 1, [0, 2], [1], [], [7, 2]])
        if o["layers_to_transform"] != [] and rng.random() < 0.5:
            o["layers_pattern"] = rng.choice(["layers", ["h", "layers"], "h"])
    if rng.random() < 0.5:
        o["rank_pattern"] = draw_pattern(rng, [2, 3, 5])
    if rng.random() < 0.5:
        o["alpha_pattern"] = draw_pattern(rng, [4, 9, 1.25])
    return o


def theirs_here(args, checks, work, rng, trials):
    import peft
    # Drawn patterns often match nothing, and peft says so.
    warnings.filterwarnings("ignore", module="peft")
    folders, truth, options = [], [], []
    while len(folders) < trials:
        o = draw_options(rng)
        config = None
        try:
            config = peft.LoraConfig(task_type="CAUSAL_LM", **o)
            wrapped = peft.get_peft_model(make_base(), config)
        except ValueError:
            continue  # peft adapts nothing with these
        common.fill_lora(wrapped, "default", rng)
        folder = work / f"theirs{len(folders)}"
        wrapped.save_pretrained(str(folder))
        try:
            truth.append(load_theirs(folder)[0])
        except (RuntimeError, ValueError):
            truth.append(None)
        folders.append(folder)
        options.append(o)
    ours = read_ours(args, folders)
    bad, refused = [], 0
    for o, mine, theirs in zip(options, ours, truth):
        if theirs is None:
            refused += 1
            good = "error" in mine
        elif "error" in mine:
            good = False
        else:
            got = {s["path"]: (s["in"], s["out"], s["rank"], s["scale"])
                   for s in mine["sites"]}
            good = got == {k: v[:4] for k, v in theirs.items()} and all(
                abs(theirs[s["path"]][4].double().sum().item() - s["a"]) < 1e-9
                and abs(theirs[s["path"]][5].double().sum().item() - s["b"]) < 1e-9
                for s in mine["sites"])
        if not good:
            bad.append((o, mine.get("error"), theirs is None))
    checks.true(f"peft's {trials} drawn folders mean the same here "
                f"({refused} that peft refuses itself)", not bad,
                str(bad[:2]) if bad else "")


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0],
                             trials=(60, "drawn folders each way"))
    checks = common.Checks()
    with common.Work(args) as work:
        ours_there(args, checks, work, common.new_rng(args, "ours"), args.trials)
        theirs_here(args, checks, work, common.new_rng(args, "theirs"), args.trials)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
