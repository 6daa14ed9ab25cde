"""Who trains which parameter: Muon the hidden matrices, AdamW the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headspec.training.train_config import OptimizerConfig


@dataclass(frozen=True)
class ParameterSplit:
    """The names of a model's parameters by owner, and how many numbers they hold.

    Attributes:
        muon: weights of hidden linear layers.
        adamw_decayed: other matrices (embeddings, unembedding, convolutions), with weight decay.
        adamw: vectors (norms, biases), without.
        frozen: parameters that are not trained.
        sizes: numbers in each parameter.
    """

    muon: tuple[str, ...]
    adamw_decayed: tuple[str, ...]
    adamw: tuple[str, ...]
    frozen: tuple[str, ...]
    sizes: dict[str, int]

    def count(self, names: Iterable[str]) -> int:
        """How many numbers these parameters hold together."""
        return sum(self.sizes[name] for name in names)

    def summary(self) -> str:
        """Owners, counts and shares in a line each."""
        total = max(1, sum(self.sizes.values()))
        rows = (
            ("Muon", "hidden matrices", self.muon),
            ("AdamW", "embeddings, unembedding, other arrays", self.adamw_decayed),
            ("AdamW, no decay", "norms and biases", self.adamw),
            ("not trained", "frozen parameters", self.frozen),
        )
        return "\n".join(
            f"{owner}: {len(names)} {what}, {self.count(names):,} numbers "
            f"({self.count(names) / total:.1%})"
            for owner, what, names in rows
            if names
        )


def split_parameters(model: nn.Module, *, not_hidden: Iterable[str] = ()) -> ParameterSplit:
    """Decide the owner of every parameter.

    Muon takes 2-D weights of linear layers inside the model: its orthogonalised update makes
    sense for a map from one hidden space to another. Embeddings, the unembedding
    (`model.get_output_embeddings()`), convolutions, norms and biases go to AdamW. A parameter
    that is shared (tied embeddings) counts once.

    Args:
        model: any module.
        not_hidden: further modules whose weights are not hidden matrices, by name, such as
            `("patch_embedding", "classifier")`.

    Returns:
        The split; every parameter is in exactly one part.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    outside = {id(head)} | {id(model.get_submodule(name)) for name in not_hidden}
    hidden = {
        id(module.weight)
        for module in model.modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and id(module) not in outside
    }
    hidden -= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # tied
    parts: dict[str, list[str]] = {"muon": [], "adamw_decayed": [], "adamw": [], "frozen": []}
    sizes = {}
    for name, parameter in model.named_parameters():
        sizes[name] = parameter.numel()
        if not parameter.requires_grad:
            parts["frozen"].append(name)
        elif id(parameter) in hidden and parameter.ndim == 2:
            parts["muon"].append(name)
        else:
            parts["adamw_decayed" if parameter.ndim >= 2 else "adamw"].append(name)
    split = ParameterSplit(**{part: tuple(names) for part, names in parts.items()}, sizes=sizes)
    owned = [*split.muon, *split.adamw_decayed, *split.adamw, *split.frozen]
    assert sorted(owned) == sorted(sizes), "every parameter has exactly one owner"
    return split


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, *, split: ParameterSplit | None = None
) -> dict[str, torch.optim.Optimizer]:
    """`{"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}`, without those that own nothing.

    Args:
        model: the parameters.
        config: rates and decays.
        split: who owns what; None: `split_parameters(model)`.
    """
    split = split_parameters(model) if split is None else split
    named = dict(model.named_parameters())
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if split.muon:
        optimizers["muon"] = torch.optim.Muon(
            [(name, named[name]) for name in split.muon],
            lr=config.muon_lr,
            momentum=config.muon_momentum,
            weight_decay=config.muon_weight_decay,
            nesterov=True,
            adjust_lr_fn=config.muon_scale,
        )
    groups: list[dict[str, Any]] = [
        {
            "params": [(name, named[name]) for name in names],
            "weight_decay": decay,
        }
        for names, decay in (
            (split.adamw_decayed, config.adamw_weight_decay),
            (split.adamw, 0.0),
        )
        if names
    ]
    if groups:
        optimizers["adamw"] = torch.optim.AdamW(
            groups, lr=config.adamw_lr, betas=config.adamw_betas, fused=True
        )
    check_owners(model, optimizers)
    return optimizers


def check_owners(model: nn.Module, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """Assert that every parameter that is trained has exactly one optimiser."""
    owned = [
        id(parameter)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert len(owned) == len(set(owned)), "a parameter has two owners"
    assert set(owned) == set(trained), "a parameter has no owner"


def set_rates(optimizers: dict[str, torch.optim.Optimizer], share: float) -> dict[str, float]:
    """Set every learning rate to a share of its peak (the rate it was built with).

    Returns:
        The rate of each optimiser's first group, by name.
    """
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = share * group.setdefault("peak_lr", group["lr"])
    return {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
