"""What each head would read if it played the part of another: the values of a swap's edits.

Whatever two heads of one layer exchange, the layer's input stays the base run's, so that the swap
is an edit of z, what each head hands to its output projection. With queries q_h, keys k_h, values
v_h of the key-value head that query head h reads, and pattern(q, k) after QK-norm and rotary
embedding, head h whose partner is g gets

    outputs         z_g = pattern(q_g, k_g) v_g
    queries         pattern(q_g, k_h) v_h
    keys            pattern(q_h, k_g) v_h
    values          pattern(q_h, k_h) v_g
    qk, pattern     pattern(q_g, k_g) v_h
    ov              pattern(q_h, k_h) v_g, written through the partner's W_O: since partners are
                    mutual, head g then writes what pattern(q_h, k_h) v_g holds, as in `qk`
    all             z_g, written through the partner's W_O: nothing changes

These are measured in the model itself, by forward passes up to the layer in which every head plays
the part of the head s places further on, one for each s. Under grouped-query attention, where
keys and values cannot be rolled head by head, they come from rolled queries and patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Edit, Intervention, Site
from headspec.interventions.full_forward import edit_hooks
from headspec.interventions.replay import Replay
from headspec.interventions.weight_swaps import SwapKind, partners
from headspec.lens.head_parameters import gains_differ_by_head
from headspec.lens.hooks import HookFunction, hook_name, run_to_layer


class SwapValues:
    """Edits of swaps in one layer of a base run, heads' parts measured when first needed.

    Args:
        replay: the base run.
        layer: in which heads are swapped.
        how: what they exchange.
        where: positions at which z is replaced; None: all.

    Raises:
        InputError: queries or keys of a model whose QK-norm has a gain for each head.
    """

    def __init__(
        self,
        replay: Replay,
        layer: int,
        how: SwapKind,
        *,
        where: Bool[Tensor, "batch pos"] | None = None,
    ) -> None:
        self.replay, self.layer, self.how, self.where = replay, layer, how, where
        self._found: dict[int, Tensor] = {}
        if how in ("queries", "keys") and gains_differ_by_head(replay.model, layer):
            raise InputError(
                expected="heads that share the gain of QK-norm, to swap queries or keys alone",
                got="a gain for each head, applied after the place where queries are edited",
                fix="Use how='pattern', or swapped_weights, which moves the gains along.",
            )

    def intervention(self, pairs: Sequence[tuple[int, int]]) -> Intervention:
        """The edits of a swap; edits of equal shift share their values."""
        n_heads = self.replay.n_heads
        order = partners(pairs, n_heads=n_heads).tolist()
        by_shift: dict[int, list[int]] = {}
        for head, partner in enumerate(order):
            if partner != head:
                by_shift.setdefault((partner - head) % n_heads, []).append(head)
        return tuple(
            Edit(self.layer, "z", self._shifted(shift), heads=tuple(heads), where=self.where)
            for shift, heads in by_shift.items()
        )

    def _shifted(self, shift: int) -> Tensor:
        """z when every head plays the part of the head `shift` places further on."""
        if self.how == "all":
            shift = 0
        if shift not in self._found:
            self._found[shift] = self._measure(shift)
        return self._found[shift]

    def _measure(self, shift: int) -> Tensor:
        match self.how:
            case "all":
                return self._base("z")
            case "outputs":
                return self._base("z").roll(-shift, 2)
            case "queries":
                return self._under("q", self._base("q").roll(-shift, 2), "z")
            case "values":
                return self._under("pattern", self._base("pattern").roll(shift, 1), "z").roll(
                    -shift, 2
                )
            case "keys":
                mixed = self._under("q", self._base("q").roll(shift, 2), "pattern")
                return self._under("pattern", mixed.roll(-shift, 1), "z")
            case _:
                return self._under("pattern", self._base("pattern").roll(-shift, 1), "z")

    def _base(self, site: Site) -> Tensor:
        return self.replay.activation(self.layer, site)

    def _under(self, site: Site, values: Tensor, wanted: Site) -> Tensor:
        """An activation of the layer when another one is replaced."""
        found: list[Tensor] = []

        def store(activation: Tensor) -> None:
            found.append(activation.detach())

        functions: dict[str, HookFunction] = {
            **edit_hooks((Edit(self.layer, site, values),)),
            hook_name(self.layer, wanted): store,
        }
        replay = self.replay
        mask = replay.attention_mask
        run_to_layer(
            replay.model, replay.tokens, functions, layer=self.layer + 1, attention_mask=mask
        )
        return found[-1]
