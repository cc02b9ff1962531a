"""What the comparisons with transformers and peft share.

Owns: the check of the pinned versions, the fresh seed, the running of our
programs, random models of each family, ragged batches, and the tally of
passed and failed checks. Developers and CI only: neither the product nor
`make check` uses Python.

Every number that a check prints is "value <= limit" in the unit that the
check's name says, so a run's output is also its report.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def check_versions():
    """Refuses to compare with any version but the pinned ones."""
    wrong = []
    for line in (HERE / "requirements.txt").read_text().splitlines():
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line.split("#")[0].strip())
        if not match:
            continue
        name, want = match.groups()
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            have = "nothing"
        if have.split("+")[0] != want:
            wrong.append(f"{name}: {have} installed, {want} pinned")
    if wrong:
        sys.exit("tests/oracle/requirements.txt is not what runs here: "
                 + "; ".join(wrong) + ". Use tests/oracle/run.sh.")


def parse_args(description, **extra):
    """--build, --seed, --keep and what a script adds: name=(default, help)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", default=os.environ.get(
        "LORI_BUILD", str(ROOT / "build" / "gcc-release")),
        help="folder of the built lori and probes")
    parser.add_argument("--seed", type=int, default=None,
                        help="seed of a former run; fresh when not given")
    parser.add_argument("--threads", type=int, default=0,
                        help="threads of torch and of ours; 0: all processors")
    parser.add_argument("--keep", default=None,
                        help="work in this folder and leave it there")
    for name, (default, text) in extra.items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, default=default, help=text,
                                type=type(default) if default is not None
                                else str)
    args = parser.parse_args()
    args.build = pathlib.Path(args.build).resolve()
    if args.seed is None:
        args.seed = secrets.randbelow(2 ** 31)
    if not args.threads:
        args.threads = len(os.sched_getaffinity(0))
    print(f"{pathlib.Path(sys.argv[0]).name}: seed {args.seed}, "
          f"{args.threads} threads", flush=True)
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return args


class Work:
    """A temporary folder, or --keep's; `with Work(args) as path:`."""

    def __init__(self, args):
        self.kept = args.keep

    def __enter__(self):
        if self.kept:
            self.path = pathlib.Path(self.kept)
            self.path.mkdir(parents=True, exist_ok=True)
        else:
            self.path = pathlib.Path(tempfile.mkdtemp(prefix="lori-oracle-"))
        return self.path

    def __exit__(self, *_):
        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)


class Checks:
    """Counts; prints every check; `finish` gives the exit status."""

    def __init__(self):
        self.passed = self.failed = 0

    def true(self, name, good, detail=""):
        good = bool(good)
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {name}"
              + (f": {detail}" if detail else ""), flush=True)
        return good

    def at_most(self, name, value, limit):
        # A NaN compares false, so it fails here as it must.
        return self.true(name, value <= limit, f"{value:.3g} <= {limit:.3g}")

    def at_least(self, name, value, limit):
        return self.true(name, value >= limit, f"{value:.3g} >= {limit:.3g}")

    def equal(self, name, ours, theirs):
        return self.true(name, ours == theirs,
                         "" if ours == theirs else f"ours {ours!r}, want {theirs!r}")

    @contextlib.contextmanager
    def part(self, name):
        """One of our programs failing inside is a failed check, not the end."""
        try:
            yield
        except RuntimeError as error:
            self.true(name, False, str(error))

    def finish(self):
        print(f"RESULT {self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


def cpu_flags():
    """The processor's feature words, as the kernel names them."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


# ---- our programs ---------------------------------------------------------

def run(command, cwd=None, expect=0, env=None):
    """Runs one of our programs; its words are shown when it fails."""
    command = [str(word) for word in command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, check=False)
    if done.returncode != expect:
        raise RuntimeError(f"exit {done.returncode} of: {' '.join(command)}\n"
                           f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def lori(args, *words, expect=0):
    """The program; with --json among the words, its parsed report."""
    env = {"OMP_NUM_THREADS": str(args.threads)}
    done = run([args.build / "lori", *words], expect=expect, env=env)
    return json.loads(done.stdout) if "--json" in words and not expect else done


def probe_model(args, work, model_dir, batch, adapter=None, grad=False,
                logits=True, **options):
    """probe_model's tensors for `batch`, as a dict of torch tensors."""
    from safetensors.torch import load_file, save_file
    source, out = work / "batch.safetensors", work / "out.safetensors"
    save_file(batch.tensors(), str(source))
    command = [args.build / "probe_model", model_dir, source, out]
    options.setdefault("threads", args.threads)
    for name, value in options.items():
        command += ["--" + name, value]
    if adapter:
        command += ["--adapter", adapter]
    command += ["--grad"] * grad + ["--logits"] * logits
    env = {"OMP_NUM_THREADS": str(options["threads"])}
    said = run(command, env=env).stdout
    result = load_file(str(out))
    result["said"] = said.strip()
    return result


# ---- batches ---------------------------------------------------------------

@dataclasses.dataclass
class Batch:
    """Ragged sequences; `prompt[s]` first tokens of s have no label."""
    sequences: list
    prompt: list
    weight: object  # torch [rows]

    def rows(self):
        """(sequence, position) whose next token is a target, in order."""
        return [(s, t) for s, ids in enumerate(self.sequences)
                for t in range(max(self.prompt[s] - 1, 0), len(ids) - 1)]

    def targets(self, shift=1):
        """`shift` 0 is the fault of predicting the token itself."""
        return [self.sequences[s][t + shift] for s, t in self.rows()]

    def tensors(self):
        import torch
        cu = [0]
        for ids in self.sequences:
            cu.append(cu[-1] + len(ids))
        def i32(values):
            return torch.tensor(values, dtype=torch.int32)
        return {"ids": i32([i for ids in self.sequences for i in ids]),
                "cu": i32(cu),
                "row": i32([cu[s] + t for s, t in self.rows()]),
                "target": i32(self.targets()),
                "weight": self.weight.float().contiguous()}

    def single(self, s):
        """Sequence s alone, with its own weights."""
        keep = [i for i, (at, _) in enumerate(self.rows()) if at == s]
        return Batch([self.sequences[s]], [self.prompt[s]], self.weight[keep])


def random_batch(rng, vocab, lengths):
    """Token 0 is avoided only because nothing is special here; weights are
    uneven, their sum is 1 like a token mean's."""
    import torch
    sequences = [[rng.randrange(vocab) for _ in range(n)] for n in lengths]
    prompt = [rng.randrange(1, n // 2) for n in lengths]
    batch = Batch(sequences, prompt, None)
    weight = torch.tensor([rng.uniform(0.5, 1.5) for _ in batch.rows()])
    batch.weight = weight / weight.sum()
    return batch


# ---- random models ---------------------------------------------------------

@dataclasses.dataclass
class Family:
    name: str
    kind: str = "llama"       # model_type
    gqa: bool = True
    theta: float = 10000.0
    scaling: dict = None      # rope_parameters beside theta
    tied: bool = False
    window: int = None
    bias: bool = False
    save_dtype: str = "float32"
    old_config: bool = False  # config.json in transformers 4's form
    shards: str = None        # max_shard_size


def llama3_scaling(rng, factor):
    # The original length is short so that wavelengths within the test's
    # sequences fall into all three parts of the rule.
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": rng.choice([48, 64, 96])}


def families(rng):
    """One of each kind of checkpoint that must load, freshly drawn."""
    return [
        Family("llama-2", gqa=False),
        Family("llama-2-linear", gqa=False, bias=True,
               scaling={"rope_type": "linear", "factor": 4.0}),
        Family("llama-3", theta=500000.0, shards="100KB"),
        Family("llama-3.1", theta=500000.0, scaling=llama3_scaling(rng, 8.0),
               save_dtype="float16"),
        Family("llama-3.2", theta=500000.0, tied=True,
               scaling=llama3_scaling(rng, 32.0), save_dtype="bfloat16"),
        Family("llama-3.2-old", theta=500000.0, tied=True,
               scaling=llama3_scaling(rng, 32.0), old_config=True),
        Family("mistral", kind="mistral", window=rng.randrange(9, 18)),
        Family("mistral-old", kind="mistral", window=rng.randrange(9, 18),
               theta=1000000.0, old_config=True),
    ]


def random_config(rng, family):
    import transformers
    kv = rng.choice([2, 3])
    group = rng.choice([2, 3, 4]) if family.gqa else 1
    heads = kv * group
    head_dim = rng.choice([16, 20, 24, 32])
    # A width that differs from heads * head_dim as a rule, but is a multiple
    # of heads: transformers refuses others.
    width = heads * rng.randrange(-(-48 // heads), 112 // heads + 1)
    rope = dict(family.scaling or {"rope_type": "default"})
    rope["rope_theta"] = family.theta
    common = dict(
        vocab_size=rng.randrange(1000, 1300), hidden_size=width,
        intermediate_size=rng.randrange(100, 260), num_hidden_layers=rng.choice([2, 3]),
        num_attention_heads=heads, num_key_value_heads=kv, head_dim=head_dim,
        max_position_embeddings=512, rms_norm_eps=rng.choice([1e-5, 3e-5]),
        tie_word_embeddings=family.tied, rope_parameters=rope,
        bos_token_id=1, eos_token_id=2, attention_dropout=0.0)
    if family.kind == "mistral":
        return transformers.MistralConfig(sliding_window=family.window, **common)
    return transformers.LlamaConfig(attention_bias=family.bias,
                                    mlp_bias=family.bias, **common)


def randomize(model, generator):
    """Weights of std 0.1, norms around 1, biases of std 0.1."""
    import torch
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator) * 0.1
            p.copy_(1.0 + noise if "norm" in name else noise)


def write_old_config(folder):
    """config.json as transformers 4 wrote it: rope_theta and rope_scaling at
    the top level, torch_dtype, no rope_parameters."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.46.2"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_model(rng, family, folder):
    """A random model of the family, saved by transformers into `folder`."""
    import torch
    import transformers
    config = random_config(rng, family)
    generator = torch.Generator().manual_seed(rng.randrange(2 ** 31))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, generator)
    model.tie_weights()
    model.to(getattr(torch, family.save_dtype))
    extra = {"max_shard_size": family.shards} if family.shards else {}
    model.save_pretrained(str(folder), **extra)
    if family.old_config:
        write_old_config(pathlib.Path(folder))
    return config


def load_model(folder, dtype, **overrides):
    """Loaded, never cast afterwards: a cast would round inv_freq too."""
    import transformers
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, attn_implementation="eager", **overrides).eval()


@contextlib.contextmanager
def patched(thing, **values):
    """Attributes of a module or class, replaced for a while."""
    before = {name: getattr(thing, name) for name in values}
    try:
        for name, value in values.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


def modeling(kind):
    """transformers' modeling module of a model_type."""
    return importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")


@contextlib.contextmanager
def true_double(kind):
    """transformers computes norms and softmax in float32 even in a float64
    model; here they are float64 (the rope angles stay float32)."""
    import torch
    module = modeling(kind)
    norm = getattr(module, {"llama": "LlamaRMSNorm", "mistral": "MistralRMSNorm"}[kind])

    def norm_forward(self, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    def attention(layer, q, k, v, mask, scaling, dropout=0.0, **_):
        k = module.repeat_kv(k, layer.num_key_value_groups)
        v = module.repeat_kv(v, layer.num_key_value_groups)
        scores = torch.matmul(q, k.transpose(2, 3)) * scaling
        if mask is not None:
            scores = scores + mask
        p = torch.softmax(scores, dim=-1)
        return torch.matmul(p, v).transpose(1, 2).contiguous(), p

    with patched(norm, forward=norm_forward), \
         patched(module, eager_attention_forward=attention):
        yield


def random_lora(model, rng, r, alpha, targets=None, std_a=0.1, std_b=0.1,
                **options):
    """peft's LoRA over `model`, A and B random. A is rounded to bf16, as A of
    this program always is, so that a bf16 run sees the same A."""
    import peft
    config = peft.LoraConfig(
        r=r, lora_alpha=alpha, task_type="CAUSAL_LM", lora_dropout=0.0,
        target_modules=targets or ["q_proj", "k_proj", "v_proj", "o_proj",
                                   "gate_proj", "up_proj", "down_proj"],
        **options)
    wrapped = peft.get_peft_model(model, config).eval()
    fill_lora(wrapped, "default", rng, std_a, std_b)
    return wrapped


def fill_lora(wrapped, name, rng, std_a=0.1, std_b=0.1):
    import torch
    generator = torch.Generator().manual_seed(rng.randrange(2 ** 31))
    with torch.no_grad():
        for key, p in wrapped.named_parameters():
            if f".lora_A.{name}." in key:
                noise = torch.randn(p.shape, generator=generator) * std_a
                p.copy_(noise.to(torch.bfloat16))
            elif f".lora_B.{name}." in key:
                p.copy_(torch.randn(p.shape, generator=generator) * std_b)


# ---- torch's side ----------------------------------------------------------

def torch_logits(model, batch):
    """Logits [rows, V] of a right-padded batch, as trainers run it."""
    import torch
    width = max(len(ids) for ids in batch.sequences)
    ids = torch.zeros(len(batch.sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for s, sequence in enumerate(batch.sequences):
        ids[s, :len(sequence)] = torch.tensor(sequence)
        mask[s, :len(sequence)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    at = batch.rows()
    return logits[[s for s, _ in at], [t for _, t in at]]


def torch_nll(logits, batch, shift=1):
    """In double from the model's own logits. torch's float32 log_softmax loses
    digits with the size of the vocabulary: at SmolLM2's 49,152 it alone puts
    5e-5 (worst tensor 4e-4) into gradients whose other error is 5e-6."""
    import torch
    target = torch.tensor(batch.targets(shift))
    return torch.nn.functional.cross_entropy(logits.double(), target, reduction="none")


def torch_loss(logits, batch, shift=1):
    nll = torch_nll(logits, batch, shift)
    return (nll * batch.weight.to(nll.dtype)).sum()


def torch_gradients(wrapped, batch, shift=1, name="default"):
    """{PATH.lora_A.grad, PATH.lora_B.grad} and the loss."""
    for key, p in wrapped.named_parameters():
        p.requires_grad_(".lora_" in key)
        p.grad = None
    logits = torch_logits(wrapped, batch)
    loss = torch_loss(logits, batch, shift)
    loss.backward()
    grads = {}
    for key, p in wrapped.named_parameters():
        match = re.fullmatch(rf"base_model\.model\.(.*)\.lora_([AB])\.{name}\.weight", key)
        if match:
            grads[f"{match[1]}.lora_{match[2]}.grad"] = p.grad.detach().clone()
    return grads, loss.detach(), logits.detach()


# ---- distances -------------------------------------------------------------

def of_range(ours, theirs):
    """Largest absolute difference, in units of the reference's range."""
    theirs = theirs.double()
    return float((ours.double() - theirs).abs().max() / (theirs.max() - theirs.min()))


def relative(ours, theirs):
    """Relative Frobenius error."""
    theirs = theirs.double()
    return float((ours.double() - theirs).norm() / theirs.norm())


def relative_number(ours, theirs):
    return abs(float(ours) - float(theirs)) / abs(float(theirs))


def new_rng(args, *words):
    """A stream of its own for each purpose, so that one may be repeated."""
    return random.Random(f"{args.seed}/" + "/".join(map(str, words)))
