"""`lori eval` against lm-evaluation-harness on the real model, in f32.

The same task, once as our YAML and once as theirs: ARC-easy and BoolQ rows by
likelihood (few-shot too), a GSM8K exact match on generated text, perplexity of
texts of several windows. Every log-likelihood is compared (theirs come from
transformers), and acc, acc_norm, stderr and exact_match to all printed digits.
"""

import json
import math
import os
import pathlib
import random
import sys

import common
import oracle_smollm2

os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
os.environ.setdefault("TQDM_DISABLE", "1")

# Sums of f32 log-probabilities over 30 layers; both sides round.
LL_TOL = 1e-3
# Of a whole text of a thousand tokens: the same error a token.
ROLLING_TOL = 1e-5

ARC = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{instruction}}\nThe correct answer is",
    "doc_to_choice": ["answer1", "answer2", "answer3", "answer4", "answer5"],
    "doc_to_target": "{{answer}}",
}
BOOLQ = {
    "output_type": "multiple_choice",
    # The blank at the end moves to the choices, on both sides.
    "doc_to_text": "{{instruction}}\n\nthe correct answer is ",
    "doc_to_choice": ["true", "false, not true"],
    "target_delimiter": "",
    "doc_to_target": "{{gold}}",
}
GSM8K = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
}
NUMBER = r"-?\d+\.?\d*"


class Task:
    """Rows and keys that both sides share, and what each writes its own way."""

    def __init__(self, name, rows, keys, ours=None, theirs=None, shots=None, n_shots=0,
                 metrics=("acc", "acc_norm")):
        self.name, self.rows, self.keys = name, rows, keys
        self.ours, self.theirs = ours or {}, theirs or {}
        self.shots, self.n_shots, self.metrics = shots, n_shots, metrics

    def write(self, folder):
        def jsonl(name, rows):
            path = folder / name
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return path

        test = jsonl(f"{self.name}.rows.jsonl", self.rows)
        ours = {"task": self.name, "test_file": test.name, **self.keys, **self.ours}
        files = {"test": str(test)}
        theirs = {"task": self.name, "dataset_path": "json", "test_split": "test",
                  "dataset_kwargs": {"data_files": files},
                  "num_fewshot": self.n_shots, **self.keys, **self.theirs}
        if self.shots:
            shots = jsonl(f"{self.name}.shots.jsonl", self.shots)
            files["train"] = str(shots)
            ours.update(fewshot_file=shots.name, num_fewshot=self.n_shots)
            theirs.update(fewshot_split="train", fewshot_config={"sampler": "first_n"})
        if "metric_list" not in theirs:
            theirs["metric_list"] = [{"metric": m} for m in self.metrics]
            ours["metric_list"] = list(self.metrics)
        # JSON is YAML.
        (folder / "theirs").mkdir(exist_ok=True)
        path = folder / f"{self.name}.yaml"
        path.write_text(json.dumps(ours))
        (folder / "theirs" / f"{self.name}.yaml").write_text(json.dumps(theirs))
        return path


def make_tasks(data, rng, limit):
    def rows(name):
        got = json.loads((data / "commonsense" / name).read_text())
        return rng.sample(got, limit)

    boolq = [{**row, "gold": int(row["answer"] == "false")} for row in rows("boolq.test.json")]
    gsm = [json.loads(line) for line in (data / "gsm8k" / "test.jsonl").read_text().splitlines()]
    few = rng.sample(gsm, 8)
    texts = [{"text": "\n\n".join(row["question"] + "  " + row["answer"]
                                  for row in rng.sample(gsm, n))} for n in (1, 3, 14)]
    return [
        Task("arc", rows("arc-easy.test.json"), ARC),
        Task("shots", rows("arc-easy.test.json")[:10], ARC, n_shots=2,
             shots=rows("arc-easy.train.json")[:3]),
        Task("boolq", boolq, BOOLQ, metrics=("acc", "acc_norm", "acc_bytes")),
        # The answer is the last number of at most 48 tokens, up to a line's end.
        Task("gsm8k", few, GSM8K,
             ours={"max_new_tokens": 48, "until": ["\n\n", "Question:"], "compare": "text",
                   "extract": {"remove": ",", "regex": NUMBER, "take": "last"},
                   "metric_list": ["exact_match"]},
             theirs={"generation_kwargs": {"until": ["\n\n", "Question:"], "max_gen_toks": 48,
                                           "do_sample": False},
                     "doc_to_target": "{{answer.split('####')[1].replace(',', '').strip()}}",
                     "filter_list": [{"name": "none", "filter": [
                         {"function": "regex", "regex_pattern": NUMBER, "group_select": -1},
                         {"function": "take_first"}]}],
                     "metric_list": [{"metric": "exact_match"}]},
             metrics=("exact_match",)),
        Task("texts", texts,
             {"output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}"},
             theirs={"doc_to_text": ""},
             metrics=("word_perplexity", "byte_perplexity", "bits_per_byte")),
    ]


def run_theirs(model, folder, tasks, threads):
    import torch
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    if threads:
        torch.set_num_threads(threads)
    lm = HFLM(pretrained=str(model), dtype="float32", batch_size=8, device="cpu")
    return lm_eval.simple_evaluate(
        model=lm, tasks=[task.name for task in tasks], log_samples=True,
        task_manager=TaskManager(include_path=str(folder / "theirs"), include_defaults=False))


def run_ours(args, model, folder, paths):
    words = ["eval", "--model", model, "--dtype", "f32", "--output", folder / "out",
             "--log-samples", "--json"]
    for path in paths:
        words += ["--task", path]
    return common.lori(args, *words)["results"]["base"]


def our_samples(folder, task):
    lines = (folder / "out" / "base" / f"{task.name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def compare_metrics(checks, task, ours, theirs):
    for metric in task.metrics:
        for key in (f"{metric},none", f"{metric}_stderr,none"):
            want, got = theirs[key], ours[key]
            if key.endswith("_perplexity,none"):
                # exp of a mean: its relative error is that of the
                # log-likelihoods (1e-5, below) times the exponent.
                checks.at_most(f"{task.name}: {key}, relative", abs(got / want - 1),
                               ROLLING_TOL * max(1.0, math.log(want)))
                continue
            both = all(isinstance(v, float) for v in (want, got))
            checks.equal(f"{task.name}: {key} to 4 digits",
                         f"{got:.4f}" if both else got, f"{want:.4f}" if both else want)


def compare_choices(checks, task, ours, theirs):
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        lls = [float(r[0][0]) for r in other["resps"]]
        worst = max([worst] + [abs(a - b) for a, b in
                               zip(mine["loglikelihoods"], lls, strict=True)])
    n = sum(len(mine["loglikelihoods"]) for mine in ours)
    checks.at_most(f"{task.name}: worst of {n} log-likelihoods", worst, LL_TOL)


def compare_generations(checks, task, ours, theirs):
    same = [mine["completion"] == other["resps"][0][0]
            for mine, other in zip(ours, theirs, strict=True)]
    checks.equal(f"{task.name}: completions that differ", same.count(False), 0)


def compare_rolling(checks, task, ours, theirs):
    worst = max(abs(mine["loglikelihood"] - float(other["resps"][0][0]))
                / abs(mine["loglikelihood"]) for mine, other in zip(ours, theirs, strict=True))
    checks.at_most(f"{task.name}: log-likelihoods, relative", worst, ROLLING_TOL)


def compare(checks, task, folder, ours, theirs):
    mine = our_samples(folder, task)
    other = sorted(theirs["samples"][task.name], key=lambda s: s["doc_id"])
    checks.equal(f"{task.name}: documents", len(mine), len(other))
    how = {"multiple_choice": compare_choices, "generate_until": compare_generations,
           "loglikelihood_rolling": compare_rolling}[task.keys["output_type"]]
    how(checks, task, mine, other)
    compare_metrics(checks, task, ours[task.name], theirs["results"][task.name])


def main():
    common.check_versions()
    args = common.parse_args(
        __doc__.splitlines()[0],
        gguf=(os.environ.get("LORI_SMOLLM2") or oracle_smollm2.default_gguf(),
              "the GGUF; tools/get_smollm2.sh fetches it"),
        data=(os.environ.get("LORI_DATA") or str(common.ROOT.parent / "shared" / "data"),
              "folder with commonsense/ and gsm8k/"),
        limit=(100, "rows of a multiple-choice task"))
    checks = common.Checks()
    rng = random.Random(args.seed)
    with common.Work(args) as work:
        model, folder = work / "smollm2", work / "tasks"
        folder.mkdir()
        common.lori(args, "import", args.gguf, model, "--dtype", "f32")
        tasks = make_tasks(pathlib.Path(args.data), rng, args.limit)
        paths = [task.write(folder) for task in tasks]
        with checks.part("lori eval"):
            ours = run_ours(args, model, folder, paths)
            theirs = run_theirs(model, folder, tasks, args.threads)
            for task in tasks:
                compare(checks, task, folder, ours, theirs)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
