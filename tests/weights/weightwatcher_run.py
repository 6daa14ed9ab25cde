"""Run as a script, in its own process: weightwatcher changes warnings, logging and output.

    python weightwatcher_run.py matrices.npz results.json

What weightwatcher says about each matrix of the file: its own analysis of a model with that layer
(its defaults, all in float64), its power-law fit of the eigenvalues, and its bulk edge.
"""

import json
import sys
from pathlib import Path

import numpy as np


def main(source: str, target: str) -> None:
    import torch
    import weightwatcher
    from weightwatcher import RMT_Util, WW_powerlaw

    found = {}
    for name, matrix in np.load(source).items():
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).double()
        layer.weight.data = torch.from_numpy(matrix)
        watcher = weightwatcher.WeightWatcher(model=torch.nn.Sequential(layer))
        row = watcher.analyze(svd_method="accurate", min_evals=1).iloc[0]
        names = ("alpha", "alpha_weighted", "log_spectral_norm", "xmin", "D", "sigma")
        values = np.sort(np.linalg.svd(matrix, compute_uv=False)) ** 2
        fit = WW_powerlaw.pl_fit(values[values > 1e-5])
        ratio = max(matrix.shape) / min(matrix.shape)
        found[name] = {key: float(row[key]) for key in names} | {
            "fit": [float(fit.alpha), float(fit.xmin), float(fit.D)],
            "lambda_plus": float(RMT_Util.calc_lambda_plus(ratio, 0.5)),
        }
    Path(target).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
