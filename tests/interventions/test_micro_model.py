"""The hand-computed model is what its plain sums say, in every class and processing."""

from importlib.metadata import version

import pytest
import torch
from micro_model import L0H0, L0H1, L1H0, L1H1, MLP, micro_features, micro_hf_model, micro_logits

from headspec.lens.hooks import run_logits
from headspec.lens.models import wrap_model

pytestmark = pytest.mark.models

CLASSES = (
    ("bridge", "hooked_transformer")
    if version("transformer-lens").startswith("3.")
    else ("bridge",)
)


def test_the_sums_by_hand():
    last = micro_features([3, 6, 0])[-1]
    assert last[L0H0] == (3 + 6 + 0) / 3
    assert last[L0H1] == (2 * 3 + 6 + 0) / 4
    assert last[L1H0] == (3 + 4.5 + 3) / 3
    assert last[MLP] == 6
    weights = [2**3, 2**4.5, 2**3]
    assert last[L1H1] == pytest.approx((weights[0] * 3 + weights[1] * 6) / sum(weights))
    sequential = micro_features([3, 6, 0], parallel=False)[-1]
    assert sequential[L1H0] == (9 + 13.5 + 9) / 3


@pytest.mark.parametrize("processing", ["none", "compatibility"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("model_class", CLASSES)
def test_the_model_computes_the_sums(model_class, parallel, processing):
    hf_model = micro_hf_model(parallel=parallel)
    model = wrap_model(hf_model, None, model_class=model_class, processing=processing)
    tokens = torch.tensor([[3, 6, 0, 5], [1, 1, 7, 2]])
    with torch.no_grad():
        logits = run_logits(model, tokens)
    expected = micro_logits(tokens, parallel=parallel)
    if processing == "compatibility":  # logits are centred
        expected = expected - expected.mean(-1, keepdim=True)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
