"""Multinomial logistic regression for many label sets and penalties on the same features at once.

L-BFGS whose first guess of the inverse Hessian is that of whitened features. Features of
language models are badly conditioned, also after standardising, and plain L-BFGS then needs a
thousand passes over them where this needs ten. Everything that depends on the features alone (one
eigendecomposition) is shared by all problems, and so is every pass: the columns of all problems
are multiplied together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_MEMORY = 10  # pairs of L-BFGS
_NUMBERS = 30_000_000  # logits held at a time
_ROWS_PER_FEATURE = 8  # rows that estimate the whitening
_Pair = tuple[Tensor, Tensor, Tensor]  # change of parameters, of gradient, their product


@dataclass(frozen=True)
class Eigenbasis:
    """Eigenvectors (columns) and eigenvalues of the features' second moments, x.T x / n."""

    vectors: Float[Tensor, "d_model d_model"]
    values: Float[Tensor, " d_model"]


def eigenbasis(x: Float[Tensor, "sample d_model"], *, exact: bool = True) -> Eigenbasis:
    """Eigenbasis of second moments, summed in float64.

    Args:
        x: standardised features.
        exact: over all rows. Otherwise over eight rows a feature, evenly spaced, which is all
            that a preconditioner needs: the optimum does not depend on it.
    """
    wanted = _ROWS_PER_FEATURE * x.shape[1]
    if not exact and len(x) > wanted:
        x = x[torch.linspace(0, len(x) - 1, wanted, device=x.device).long()]
    moments = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(8192):
        moments.addmm_(rows.double().T, rows.double())
    values, vectors = torch.linalg.eigh(moments / len(x))
    return Eigenbasis(vectors.to(x.dtype), values.clamp_min(0).to(x.dtype))


def solve_logistic(
    x: Float[Tensor, "sample d_model"],
    targets: Int[Tensor, "set sample"],
    l2: Sequence[float],
    *,
    n_classes: int,
    basis: Eigenbasis | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 300,
) -> tuple[Float[Tensor, "set l2 d_model class"], Float[Tensor, "set l2 class"]]:
    """Weights and biases that minimise mean cross-entropy + l2/2 |W|², biases free.

    scikit-learn's `LogisticRegression(C=1 / (l2 * n))` has the same optimum for three classes
    and more, `C=2 / (l2 * n)` for two (it then keeps one vector, the difference of our two).

    Args:
        x: features, standardised; float32 or float64, in which all is computed.
        targets: classes from 0, one row a set of labels.
        l2: penalties, above 0.
        n_classes: number of classes.
        basis: as `eigenbasis(x, exact=False)` gives it.
        tolerance: stops where a Newton step would gain less, in nats.
        max_iterations: passes over the data at most.

    Returns:
        For every set of labels and penalty, weights and biases that sum to 0 over classes.
    """
    basis = eigenbasis(x, exact=False) if basis is None else basis
    n_sets, n = targets.shape
    which = torch.arange(n_sets, device=x.device).repeat_interleave(len(l2))
    penalties = torch.tensor(l2, dtype=x.dtype, device=x.device).repeat(n_sets)
    at_once = max(1, _NUMBERS // (n * n_classes))
    found = []
    for part in torch.arange(len(which), device=x.device).split(at_once):
        problems = _Problems(x, targets[which[part]], penalties[part], n_classes, basis)
        found.append(_minimise(problems, tolerance, max_iterations))
    theta = torch.cat(found, 1).unflatten(1, (n_sets, len(l2))).permute(1, 2, 0, 3)
    return theta[:, :, :-1].contiguous(), theta[:, :, -1].contiguous()


@dataclass(frozen=True)
class _Problems:
    """Objectives on shared features; parameters are `d_model+1 problem class`, bias last."""

    x: Tensor
    targets: Tensor  # problem sample
    l2: Tensor  # problem
    n_classes: int
    basis: Eigenbasis
    factors: Tensor | None = None  # problem d_model+1 d_model+1, see `reweighted`

    def start(self) -> Tensor:
        """Weights 0 and the logarithms of class frequencies, none of them 0."""
        counts = F.one_hot(self.targets, self.n_classes).sum(1).to(self.x.dtype) + 0.5
        biases = counts.log()
        theta = self.x.new_zeros(self.x.shape[1] + 1, *counts.shape)
        theta[-1] = biases - biases.mean(-1, keepdim=True)
        return theta

    def logits(self, theta: Tensor) -> Tensor:
        """`sample problem class`."""
        flat = torch.addmm(theta[-1].reshape(-1), self.x, theta[:-1].flatten(1))
        return flat.view(len(self.x), *theta.shape[1:])

    def objective(self, logits: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities, and the objective of each problem in float64."""
        log_p = logits.log_softmax(-1)
        chosen = log_p.gather(2, self.targets.T[..., None])[..., 0]
        penalty = 0.5 * self.l2.double() * theta[:-1].double().square().sum((0, 2))
        return log_p, penalty - chosen.mean(0, dtype=torch.float64)

    def gradient(self, log_p: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient, and the mean curvature of the loss in the logits of each problem."""
        p = log_p.exp()
        curvature = (1 - p.square().sum(-1).mean(0)) / (self.n_classes - 1)
        p.scatter_add_(2, self.targets.T[..., None], -torch.ones_like(p[..., :1]))
        gradient = torch.empty_like(theta)
        torch.mm(self.x.T, p.flatten(1), out=gradient[:-1].flatten(1))
        gradient[:-1] /= len(self.x)
        gradient[:-1] += self.l2[:, None] * theta[:-1]
        gradient[-1] = p.mean(0)
        return gradient, curvature.clamp_min(1e-6)

    def precondition(self, direction: Tensor, curvature: Tensor) -> Tensor:
        """Times the inverse of curvature x second moments + l2, as if all samples curved alike.

        Or, once reweighted, of the second moments as each sample curves.
        """
        if self.factors is not None:
            rows = direction.double().transpose(0, 1)
            return torch.cholesky_solve(rows, self.factors).transpose(0, 1).to(direction.dtype)
        turned = (self.basis.vectors.T @ direction[:-1].flatten(1)).view_as(direction[:-1])
        turned /= (self.basis.values[:, None] * curvature + self.l2)[..., None]
        out = torch.empty_like(direction)
        out[:-1] = (self.basis.vectors @ turned.flatten(1)).view_as(turned)
        out[-1] = direction[-1] / curvature[:, None]
        return out

    def reweighted(self, log_p: Tensor) -> _Problems:
        """With a preconditioner for each problem: samples weigh by the curvature they have now.

        For features with heavy tails: what lies far out is soon classified for certain and
        curves no more, but rules the plain second moments.
        """
        x = torch.cat([self.x, self.x.new_ones(len(self.x), 1)], 1)
        weights = (1 - log_p.exp().square().sum(-1)) / (self.n_classes - 1)
        moments = torch.stack([x.T @ (x * w[:, None]) for w in weights.T]).double() / len(x)
        diagonal = moments.diagonal(dim1=-2, dim2=-1)
        ridge = (1e-6 * diagonal.mean(-1, keepdim=True) + 1e-12).repeat(1, diagonal.shape[1])
        ridge[:, :-1] += self.l2[:, None].double()
        return replace(self, factors=torch.linalg.cholesky(moments + torch.diag_embed(ridge)))

    def keep(self, chosen: Tensor) -> _Problems:
        factors = None if self.factors is None else self.factors[chosen]
        return replace(self, targets=self.targets[chosen], l2=self.l2[chosen], factors=factors)


def _minimise(problems: _Problems, tolerance: float, max_iterations: int) -> Tensor:
    theta = problems.start()
    solution = theta.clone()
    left = torch.arange(theta.shape[1], device=theta.device)
    logits = problems.logits(theta)
    log_p, value = problems.objective(logits, theta)
    gradient, curvature = problems.gradient(log_p, theta)
    pairs: list[_Pair] = []
    stuck, new_value = torch.zeros_like(left, dtype=torch.bool), value
    # Costs as much as d_model / (2 classes) passes over one problem.
    patience = 15 + len(theta) // problems.n_classes
    for iteration in range(max_iterations):
        gain = 0.5 * _dot(gradient, problems.precondition(gradient, curvature))
        going = (gain > tolerance) & ~stuck
        if not going.all():
            solution[:, left] = theta
            if not going.any():
                return solution
            left, problems = left[going], problems.keep(going)
            theta, gradient, logits = theta[:, going], gradient[:, going], logits[:, going]
            value, curvature, log_p = value[going], curvature[going], log_p[:, going]
            pairs = [(s[:, going], y[:, going], sy[going]) for s, y, sy in pairs]
        if iteration and iteration % patience == 0:
            problems, pairs = problems.reweighted(log_p), []
        step = _descent(problems, gradient, curvature, pairs)
        change = problems.logits(step)
        slope = _dot(gradient, step).double()
        length = torch.ones_like(slope, dtype=theta.dtype)[:, None]
        for _ in range(12):  # the logits are linear in the step: trying costs no pass
            log_p, new_value = problems.objective(logits + length * change, theta + length * step)
            stuck = new_value > value + 1e-4 * length[:, 0] * slope + 1e-12
            if not stuck.any():
                break
            length = torch.where(stuck[:, None], length / 2, length)
        # What no length improves is at the optimum, to rounding.
        length = length.masked_fill(stuck[:, None], 0)
        logits, new_theta = logits + length * change, theta + length * step
        new_gradient, curvature = problems.gradient(log_p, new_theta)
        s, y = new_theta - theta, new_gradient - gradient
        pairs = [*pairs, (s, y, _dot(s, y).clamp_min(torch.finfo(s.dtype).tiny))][-_MEMORY:]
        theta, value, gradient = new_theta, new_value, new_gradient
    solution[:, left] = theta
    return solution


def _descent(
    problems: _Problems, gradient: Tensor, curvature: Tensor, pairs: list[_Pair]
) -> Tensor:
    """The two loops of L-BFGS (Nocedal 1980) around the preconditioner, scaled to the last pair."""
    rest, shares = gradient.clone(), []
    for s, y, sy in reversed(pairs):
        shares.append(_dot(s, rest) / sy)
        rest -= shares[-1][:, None] * y
    out = problems.precondition(rest, curvature)
    if pairs:
        _, y, sy = pairs[-1]
        yhy = _dot(y, problems.precondition(y, curvature))
        out *= (sy / yhy.clamp_min(torch.finfo(y.dtype).tiny))[:, None]
    for (s, y, sy), share in zip(pairs, reversed(shares), strict=True):
        out += (share - _dot(y, out) / sy)[:, None] * s
    return -out


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each problem."""
    return (a * b).sum((0, 2))
