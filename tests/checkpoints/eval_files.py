"""Evaluation files as EleutherAI/pythia and lm-evaluation-harness write them."""

import json

STEPS = (0, 1, 512, 1000)


def result(model, step, *, shots=0, acc=0.5, tasks=("piqa", "sciq"), version=0, **config):
    args = f"use_accelerate=True,pretrained=EleutherAI/pythia-v1.1-{model},revision=step{step}"
    numbers = {"acc": acc, "acc_stderr": 0.01, "acc_norm": acc / 2, "acc_norm_stderr": 0.02}
    return {
        "results": {task: dict(numbers) for task in tasks},
        "versions": dict.fromkeys(tasks, version),
        "config": {"model": "hf-causal", "model_args": args, "num_fewshot": shots, "limit": None}
        | config,
    }


def write(root, model, step, *, folder=None, name=None, **kwargs):
    shots = kwargs.get("shots", 0)
    folder = folder or f"pythia-{model}/{'five' if shots else 'zero'}-shot"
    name = name or f"{model}{'-5shot' if shots else ''}_step{step}.json"
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result(model, step, **kwargs)))
    return path


def write_suite(tmp_path):
    """Two models zero-shot, one of them five-shot too, named as in EleutherAI/pythia."""
    for i, step in enumerate(STEPS):
        write(tmp_path, "70m", step, acc=0.25 + i / 10)
        write(tmp_path, "160m-deduped", step, acc=0.3 + i / 10)
    write(tmp_path, "70m", 1000, shots=5, acc=0.6)
    return tmp_path


def today(*, args, tasks=None, **more):
    """A `results_<date>.json` as release 0.4 writes it."""
    tasks = tasks or {
        "piqa": {"acc,none": 0.61, "acc_stderr,none": 0.011, "acc_norm,none": 0.6},
        "gsm8k": {
            "exact_match,strict-match": 0.1,
            "exact_match_stderr,strict-match": 0.02,
            "exact_match,flexible-extract": 0.2,
            "exact_match_stderr,flexible-extract": "N/A",
        },
        "lambada_openai": {"perplexity,none": 30.0, "perplexity_stderr,none": 1.0, "acc,none": 0.3},
        "mmlu": {"acc,none": 0.26, "acc_stderr,none": 0.004, "alias": "mmlu"},
        "blimp": {" ": " ", "alias": "blimp"},
    }
    tasks = {task: {"alias": f" - {task}", **numbers} for task, numbers in tasks.items()}
    return {
        "results": tasks,
        "groups": {"mmlu": tasks.get("mmlu")},
        "group_subtasks": {"mmlu": []},
        "configs": {"gsm8k": {"task": "gsm8k", "num_fewshot": 3}},
        "versions": {"piqa": 1.0, "gsm8k": 3.0, "lambada_openai": "Yaml", "mmlu": 2},
        "n-shot": {"piqa": 0, "lambada_openai": 0},
        "higher_is_better": {"piqa": {"acc": True}},
        "n-samples": {"piqa": {"original": 1838, "effective": 1838}},
        "config": {"model": "hf", "model_args": args, "limit": None, "num_fewshot": None},
        "git_hash": "9f1c2ab",
        "date": 1765108800.0,
    } | more
