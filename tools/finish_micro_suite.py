"""Measure the snapshots of finished runs and put them into the package with their tables.

    python tools/finish_micro_suite.py --runs runs --pools runs/pools.pkl

Reads ``runs/<size>/`` as `train_micro_suite.py` leaves it; writes the package data and the log
beside this file. Every number is measured on the half-precision weights that are shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from micro_data import Pools, cached_pools
from train_micro_suite import LENGTH, SIZES, STEPS, build_model, write_atomically

from headspec.activations.repeats import repeated_tokens
from headspec.checkpoints import micro, micro_capabilities, micro_tasks
from headspec.results import tidy

HELD_OUT_ROWS = 448
HERE = Path(__file__).parent


def write_shared(pools: Pools, target: Path) -> None:
    """Tokenizer and held-out text, once for all sizes."""
    pools.tokenizer.save_pretrained(target / "tokenizer")
    body = pools.held_out[: HELD_OUT_ROWS * (LENGTH - 1)].reshape(HELD_OUT_ROWS, LENGTH - 1)
    begin = np.full((HELD_OUT_ROWS, 1), pools.end, dtype=np.uint16)
    np.save(target / "held_out.npy", np.concatenate([begin, body], axis=1))


def write_size(name: str, pools: Pools, *, run: Path, target: Path) -> list[dict]:
    """Config and weights of one size; returns a row a step with the file's hash."""
    model = build_model(SIZES[name], vocab=len(pools.tokenizer), end=pools.end, seed=0)
    target.mkdir(parents=True, exist_ok=True)
    model.config.architectures, model.config.dtype = ["GPTNeoXForCausalLM"], torch.float16
    model.config.save_pretrained(target)
    rows = []
    for step in STEPS:
        data = (run / f"step{step}" / "model.safetensors").read_bytes()
        write_atomically(target / f"step{step}" / "model.safetensors", data)
        # from_pretrained looks for this file, or else a config.json, beside the weights
        model.generation_config.save_pretrained(target / f"step{step}")
        rows.append({"step": step, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return rows


def head_scores(name: str, step: int, pools: Pools) -> pd.DataFrame:
    """Tidy rows of previous-token and induction attention of every head."""
    period, n = micro_capabilities.REPEAT_PERIOD, 64
    symbols = micro_tasks.repeat_symbols(pools.tokenizer)
    tokens = repeated_tokens(
        symbols, n, period=period, length=1 + 2 * period, bos=pools.end, seed=1
    )
    model = micro.micro_model(name, step, attention="eager")
    scores = micro_capabilities.head_attention_scores(model, tokens, period=period)
    rows = scores.melt(
        id_vars=["layer", "head", "uniform"],
        value_vars=["previous_token", "induction"],
        var_name="metric",
    )
    rows["null_mean"] = rows.pop("uniform").where(rows["metric"] == "induction")
    return tidy(rows, model=name, step=step, n=n, seed=1)


def measure(name: str, pools: Pools, *, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Capabilities and head scores of every step of one size."""
    capabilities, scores = [], []
    for step in STEPS:
        frame = micro_capabilities.measure_capabilities(
            micro.micro_model(name, step),
            pools.tokenizer,
            symbols=micro_tasks.repeat_symbols(pools.tokenizer),
            held_out=micro.held_out_tokens()[:128],
            n=n,
            name=name,
            step=step,
        )
        capabilities.append(frame)
        scores.append(head_scores(name, step, pools))
        print(name, step, frame.set_index("metric")["value"].round(3).to_dict(), flush=True)
    return pd.concat(capabilities), pd.concat(scores)


def write_log(runs: Path, files: dict[str, list[dict]]) -> None:
    """The training log of all sizes, beside this script."""
    logs = [pd.read_csv(runs / name / "log.csv").assign(size=name) for name in files]
    table = pd.concat(logs)
    table = table[["size", *table.columns.drop("size")]]
    write_atomically(HERE / "micro_suite_log.csv", table.to_csv(index=False).encode())
    record = {
        name: {**json.loads((runs / name / "record.json").read_text()), "files": rows}
        for name, rows in files.items()
    }
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(HERE / "micro_suite_log.json", text.encode())


def main() -> None:
    """Parse the command line, write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("-n", type=int, default=500, help="questions of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pools, target = cached_pools(arguments.pools), micro.micro_path("")
    target.mkdir(parents=True, exist_ok=True)
    write_shared(pools, target)
    tables, files = [], {}
    for name in arguments.sizes:
        run = arguments.runs / name
        files[name] = write_size(name, pools, run=run, target=target / name)
        tables.append(measure(name, pools, n=arguments.n))
    write_log(arguments.runs, files)
    for index, stem in enumerate(("capabilities", "head_scores")):
        frames = [of_size[index] for of_size in tables]
        text = pd.concat(frames).to_csv(index=False, float_format="%.6g")
        write_atomically(target / f"{stem}.csv", text.encode())


if __name__ == "__main__":
    main()
