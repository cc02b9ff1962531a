"""Makes models/tiny: a tokenizer, then a Llama of 3.6 M parameters from nothing.

    LORI_PY=$(tests/oracle/env.sh | tail -n 1)
    $LORI_PY tools/tiny/pretrain.py --work DIR [--steps 9500] [--seed 1]

For developers: needs the environment of tests/oracle/. A checkpoint every 100
steps in DIR, from which the same command goes on. At the end DIR/model is the
folder to be copied to models/tiny, MANIFEST.json included.
"""

import argparse
import hashlib
import json
import os
import sys
import time

import torch
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
from pretrain_text import IM_END, IM_START, Text, load_words, spans  # noqa: E402

END = "<|endoftext|>"
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                 "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
CONTEXT = 128
VOCABULARY = 1536
SOURCES = ("data/words.txt", "tools/tiny/pretrain_text.py", "tools/tiny/pretrain.py")


def make_tokenizer(words, seed, folder):
    """Byte-level BPE, each digit a token of its own; kept in `folder`."""
    if os.path.exists(folder):
        return PreTrainedTokenizerFast.from_pretrained(folder)
    text = Text(words, seed ^ 0x7070)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END, IM_START, IM_END],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator((spans(text.document())[0] for _ in range(60000)), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=IM_END, pad_token=END, chat_template=CHAT_TEMPLATE,
                                   model_max_length=512, clean_up_tokenization_spaces=False)
    made.save_pretrained(folder)
    return made


def make_model(vocabulary, eos, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=4, head_dim=64, max_position_embeddings=512,
                         rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=None, eos_token_id=eos, pad_token_id=0)
    model = LlamaForCausalLM(config)
    # Products keep the size of what goes in, and all 2 * layers that add to the
    # residual stream together add about as much as there is. Values go through
    # o_proj = v_proj' at first: attention then copies what it looks at, which a
    # model this small otherwise takes very long to find ("mimetic"
    # initialization, Trockman and Kolter 2023, arXiv 2305.09828).
    for layer in model.model.layers:
        for p in layer.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
        torch.nn.init.orthogonal_(layer.self_attn.v_proj.weight)
        share = (2 * config.num_hidden_layers) ** -0.5
        with torch.no_grad():
            layer.self_attn.o_proj.weight.copy_(share * layer.self_attn.v_proj.weight.T)
            layer.mlp.down_proj.weight.mul_(share)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=config.hidden_size ** -0.5)
    return model


class Stream:
    """Packed sequences of CONTEXT + 1 ids and their labels; `rest` is what is
    left of the last documents, (id, label) each."""

    def __init__(self, words, seed, tok, batch):
        self.text, self.tok, self.rest = Text(words, seed), tok, []
        self.size = batch
        self.end = tok.convert_tokens_to_ids(END)

    def add(self, documents):
        texts, free = zip(*(spans(d) for d in documents))
        made = self.tok(list(texts), return_offsets_mapping=True)
        for ids, places, unknown in zip(made["input_ids"], made["offset_mapping"], free):
            for id, (_, to) in zip(ids, places):
                learned = not any(a < to <= b for a, b in unknown)
                self.rest.append((id, id if learned else -100))
            self.rest.append((self.end, self.end))

    def batch(self, kinds, share):
        need = self.size * (CONTEXT + 1)
        while len(self.rest) < need:
            self.add([self.text.document(kinds, share) for _ in range(64)])
        rows, self.rest = self.rest[:need], self.rest[need:]
        both = torch.tensor(rows).view(self.size, CONTEXT + 1, 2)
        return both[:, :-1, 0], both[:, 1:, 1]


def rate(step, steps, peak):
    """Warm-up, constant, then down to nothing over the last third."""
    return peak * min(1.0, (step + 1) / 100, (steps - step) / (steps / 3))


# Skills first: (until step, kinds of documents, their share); later the mix
# alone. Copying is learned from texts that repeat themselves: not yet in the
# first thousand steps, at once when words and numbers are known.
DRILLS = [(1000, ["copies"], 0.7), (3600, ["sums", "stories", "lists", "lists"], 0.6), (4400, ["copies"], 0.7),
          (6600, ["sums", "stories", "lists", "lists", "copies"], 0.6)]


def drill(step):
    for until, kinds, share in DRILLS:
        if step < until:
            return kinds, share
    return [], 0.0


def groups(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def export(model, tok, args, loss, out):
    model.to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    files = sorted(f for f in os.listdir(out) if f != "MANIFEST.json")
    manifest = {
        "command": f"tools/tiny/pretrain.py --work DIR --steps {args.steps} --seed {args.seed} --rate {args.rate} "
                   f"--batch {args.batch} --threads {args.threads}",
        "loss": round(loss, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__,
                     "transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "sources": {name: sha256(os.path.join(ROOT, name)) for name in SOURCES},
        "files": {name: sha256(os.path.join(out, name)) for name in files},
    }
    with open(os.path.join(out, "MANIFEST.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--steps", type=int, default=9500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    words = load_words(os.path.join(ROOT, "data/words.txt"))
    os.makedirs(args.work, exist_ok=True)
    tok = make_tokenizer(words, args.seed, os.path.join(args.work, "tokenizer"))
    model = make_model(len(tok), tok.eos_token_id, args.seed)
    stream = Stream(words, args.seed, tok, args.batch)
    optimizer = torch.optim.AdamW(groups(model), lr=args.rate, betas=(0.9, 0.95), fused=True)
    step, mean, saved = 0, None, os.path.join(args.work, "checkpoint.pt")
    if os.path.exists(saved):
        state = torch.load(saved, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        stream.rest, step, mean = state["rest"], state["step"], state["mean"]
        stream.text.r.setstate(state["random"])
    print(f"seed {args.seed}, {sum(p.numel() for p in model.parameters())} parameters, "
          f"vocabulary {len(tok)}, from step {step} to {args.steps}", flush=True)
    started = time.time()
    while step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args.steps, args.rate)
        ids, labels = stream.batch(*drill(step))
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 20 == 0:
            print(f"step {step} loss {mean:.4f} ({time.time() - started:.0f} s)", flush=True)
        if step % 100 == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rest": stream.rest, "step": step,
                        "mean": mean, "random": stream.text.r.getstate()}, saved + ".part")
            os.replace(saved + ".part", saved)
    export(model, tok, args, mean, os.path.join(args.work, "model"))


if __name__ == "__main__":
    main()
