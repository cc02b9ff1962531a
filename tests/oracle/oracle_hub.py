"""lori pull and Hugging Face's cache against huggingface_hub and transformers.

What `lori pull` downloads is found by huggingface_hub offline and loaded by
transformers by its name; what huggingface_hub downloads from the same server,
`lori` finds by its name. The server is tests/cli/hub_server.c; the model is a
random one in several shards.
"""

import json
import os
import subprocess
import sys

import common

NAME = "good/tiny"

# In a process of its own: huggingface_hub reads the environment at import.
THEIRS = """
import json, sys
import huggingface_hub as hub, torch, transformers
name = sys.argv[1]
folder = hub.snapshot_download(name, local_files_only=True, ignore_patterns=["*.bin"])
model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(name)
info = hub.scan_cache_dir()
repo = next(r for r in info.repos if r.repo_id == name)
ids = torch.tensor([tokenizer.encode(sys.argv[2])])
with torch.no_grad():
    logits = model(ids).logits[0, -1]
print(json.dumps({"folder": folder, "warnings": [str(w) for w in info.warnings],
    "refs": sorted(repo.refs), "files": repo.nb_files,
    "next": int(logits.argmax()), "logits": logits.tolist(), "ids": ids[0].tolist()}))
"""
DOWNLOAD = """
import sys, huggingface_hub as hub
print(hub.snapshot_download(sys.argv[1], ignore_patterns=["*.bin"]))
"""


def python(code, *words, **env):
    done = common.run([sys.executable, "-c", code, *words], env=env)
    return done.stdout.strip().splitlines()[-1]


class Server:
    """tests/cli/hub_server.c on a folder; ends when its stdin closes."""

    def __init__(self, args, folder):
        self.process = subprocess.Popen(
            [args.build / "hub_server", folder], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self):
        return f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def make_repository(args, work):
    """A tiny model with tokenizer, in shards of 100 KB."""
    import torch
    import transformers
    common.run([args.build / "tiny_gguf", work / "tiny.gguf", args.seed % 1000])
    common.lori(args, "import", work / "tiny.gguf", work / "one", "--dtype", "f32")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        work / "one", dtype=torch.float32)
    repository = work / "repository"
    model.save_pretrained(repository, max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (repository / name).write_bytes((work / "one" / name).read_bytes())
    (repository / "pytorch_model.bin").write_bytes(b"not wanted")
    return repository


def main():
    common.check_versions()
    args = common.parse_args(__doc__.splitlines()[0])
    checks = common.Checks()
    with common.Work(args) as work:
        repository = make_repository(args, work)
        shards = len(list(repository.glob("*.safetensors")))
        checks.at_least("shards", shards, 2)
        ours, theirs = work / "ours", work / "theirs"
        with Server(args, repository) as endpoint:
            os.environ["HF_HOME"] = str(ours)
            os.environ["HF_HUB_OFFLINE"] = "0"
            pulled = common.lori(args, "pull", NAME, "--endpoint", endpoint, "--json")
            made = python(DOWNLOAD, NAME, HF_HOME=str(theirs), HF_ENDPOINT=endpoint,
                          HF_HUB_OFFLINE="0")
        os.environ["HF_HUB_OFFLINE"] = "1"
        text = "a few words"
        found = json.loads(python(THEIRS, NAME, text, HF_HOME=str(ours)))
        checks.equal("snapshot_download finds what we pulled", found["folder"], pulled["folder"])
        checks.equal("scan_cache_dir has no warnings", found["warnings"], [])
        checks.equal("scan_cache_dir: refs", found["refs"], ["main"])
        checks.equal("scan_cache_dir: files", found["files"], pulled["files"])
        again = json.loads(python(THEIRS, NAME, text, HF_HOME=str(theirs)))
        checks.equal("their download lies where ours does",
                     made.replace(str(theirs), ""), pulled["folder"].replace(str(ours), ""))
        checks.equal("the model is the same in both caches", again["logits"], found["logits"])
        for label, home in (("our cache", ours), ("their cache", theirs)):
            os.environ["HF_HOME"] = str(home)
            report = common.lori(args, "score", "--model", NAME, "--ids",
                                 ",".join(map(str, found["ids"])), "--top", "1",
                                 "--dtype", "f32", "--json")
            checks.equal(f"best next token by name, {label}",
                         report["top"][0]["id"], found["next"])
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
