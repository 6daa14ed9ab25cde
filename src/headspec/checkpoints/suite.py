"""A suite: the checkpoints of one training run as one object."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import pandas as pd
from torch import Tensor

from headspec import layouts
from headspec.checkpoints.checkpoint import Checkpoint
from headspec.checkpoints.hub import HubSource
from headspec.checkpoints.integrity import verify_source
from headspec.checkpoints.naming import in_order, match_names, no_match
from headspec.checkpoints.opening import open_source
from headspec.checkpoints.source import Source
from headspec.checkpoints.steps import check_steps
from headspec.errors import CheckpointError, HubUnreachableError
from headspec.head_tensors import HeadWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_suite(
    name_or_path: str | os.PathLike[str],
    *,
    revision_format: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> CheckpointSuite:
    """Open the checkpoints of one training run.

    Args:
        name_or_path: one of

            - `"micro"`, `"micro-small"`, `"micro-tiny"`: small trained models that come with
              headspec;
            - a folder with a sub-folder for each step, named `step{N}` or `checkpoint-{N}`, as
              `save_pretrained` and the Hugging Face Trainer write them;
            - a model on the Hub with a branch or tag for each step, such as
              `"EleutherAI/pythia-160m"`, `"EleutherAI/pythia-160m-seed1"`,
              `"stanford-crfm/alias-gpt2-small-x21"`, `"allenai/OLMo-1B-hf"`.
        revision_format: how branches, tags or sub-folders are named, if not `step{N}`,
            `checkpoint-{N}` or `step{N}-tokens{M}B`: text with the field `{step}` and any other
            named fields, such as `"stage1-step{step}-tokens{tokens}B"`.
        cache_dir: folder for what is read from the Hub; None: huggingface_hub's.
        offline: use only what is cached, as `HF_HUB_OFFLINE=1` does for everything.

    Returns:
        The suite; only the list of steps has been read.

    Raises:
        InputError: no such folder, or nothing in it is named like a step.
        HubUnreachableError: the model does not exist or the Hub cannot be reached.

    Example:
        >>> suite = open_suite("EleutherAI/pythia-160m")    # doctest: +SKIP
        >>> suite.head_weights(1000, layer=6).W_Q.shape     # doctest: +SKIP
        torch.Size([12, 768, 64])
    """
    source = open_source(
        name_or_path, revision_format=revision_format, cache_dir=cache_dir, offline=offline
    )
    return CheckpointSuite(source)


class CheckpointSuite:
    """The checkpoints of one training run; open one with `open_suite`.

    A pickled suite carries the steps and where they lie, not the weights.

    Attributes:
        source: where they lie.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._verification: pd.DataFrame | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def name(self) -> str:
        """Name of the run: the model on the Hub, or the folder."""
        return self.source.name

    @property
    def steps(self) -> tuple[int, ...]:
        """Every training step, ascending."""
        return self.source.steps

    @property
    def n_layers(self) -> int:
        """Number of layers (of the newest step)."""
        return self.checkpoint(self.steps[-1]).n_layers

    @property
    def n_heads(self) -> int:
        """Number of query heads in a layer (of the newest step)."""
        return layouts.n_heads(self.config(self.steps[-1]))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The run's tokenizer, loaded on first use.

        Raises:
            CheckpointError: there is none beside the checkpoints.
        """
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            folder = self.source.tokenizer_folder()
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return self._tokenizer  # pyright: ignore[reportReturnType]

    def config(self, step: int) -> dict[str, Any]:
        """config.json of a step."""
        return self.source.config(self._one(step))

    def tensor_names(self, step: int) -> tuple[str, ...]:
        """Names of all tensors of a step, layer 2 before layer 10."""
        return in_order(self.source.weight_map(self._one(step)))

    def head_weights(self, step: int, layer: int) -> HeadWeights:
        """The attention heads of one layer, reading only the tensors that hold them.

        Unprocessed and in the stored dtype: bit for bit the file's numbers. From the Hub, layer 6
        of pythia-160m (float16) costs about 5 MB and a few requests instead of the whole file, and
        nothing the second time.

        Args:
            step: training step.
            layer: layer index from 0.

        Raises:
            StepNotFoundError: the suite has no such step.
            CheckpointError: files are missing or damaged.
            UnsupportedArchitectureError: no layout is known.
        """
        config = self.config(step)
        names = layouts.head_tensor_names(config, layer, self.source.weight_map(step)).values()
        tensors = self.source.read(step, names)
        return layouts.head_weights_from_tensors(
            config, layer, tensors, model=self.name, step=int(step)
        )

    def layer_matrices(self, step: int, layer: int) -> dict[str, Tensor]:
        """The matrices of one layer by role, `[d_in d_out]` (x @ W), reading only these tensors.

        Unprocessed and in the stored dtype. Q, K and V are cut out of a fused matrix, heads in
        order: statistics of the fused one are not theirs.

        Args:
            step: training step.
            layer: layer index from 0.

        Returns:
            `"q" "k" "v" "o" "mlp_in"`, `"mlp_gate"` where the MLP is gated, `"mlp_out"`.

        Raises:
            StepNotFoundError: the suite has no such step.
            CheckpointError: files or tensors are missing or damaged.
            UnsupportedArchitectureError: no layout is known, or not for MLPs.

        Example:
            >>> import headspec as hs
            >>> hs.open_suite("micro").layer_matrices(0, 1)["mlp_in"].shape
            torch.Size([120, 240])
        """
        config = self.config(step)
        names = layouts.layer_matrix_names(config, layer, self.source.weight_map(step)).values()
        tensors = self.source.read(step, names)
        return layouts.layer_matrices_from_tensors(config, layer, tensors)

    def embedding_matrices(self, step: int) -> dict[str, Tensor]:
        """The embeddings by their role, reading only these tensors.

        Args:
            step: training step.

        Returns:
            `"embed" [d_vocab d_model]`, `"unembed" [d_model d_vocab]` (where it is tied: the
            embedding, transposed; a base model without a head has none), and where there are
            such tables `"pos_embed" [n_positions d_model]` and `"token_type_embed" [n_types
            d_model]`. Raises as `layer_matrices`.
        """
        config = self.config(step)
        names = set(layouts.embedding_names(config, self.source.weight_map(step)).values())
        tensors = self.source.read(step, names)
        return layouts.embedding_matrices_from_tensors(config, tensors)

    def matrices(self, step: int, pattern: str | re.Pattern[str]) -> dict[str, Tensor]:
        """Named matrices, as stored, reading only these.

        Args:
            step: training step.
            pattern: with `*`, `?`, `[...]` for the whole name, such as
                `"*.attention.dense.weight"`, or a compiled regular expression to search for.

        Returns:
            name -> tensor of two or more dimensions, layer 2 before layer 10. Vectors (biases,
            gains) are left out.

        Raises:
            InputError: no matrix has such a name; the message lists similar ones.
        """
        names = self.tensor_names(step)
        matching = match_names(names, pattern)
        shapes = self.source.shapes(step, matching)
        matrices = [name for name in matching if len(shapes[name]) >= 2]
        if not matrices:
            raise no_match(pattern, names, matching)
        tensors = self.source.read(step, matrices)
        return {name: tensors[name] for name in matrices}

    def model(self, step: int, **kwargs: Any) -> Any:
        """The checkpoint as a hooked model, built anew at every call.

        From the Hub this downloads all weights. Without a tokenizer it takes token ids only.

        Args:
            step: training step.
            **kwargs: of `headspec.load_model`: `model_class`, `processing`, `device`, `dtype`.
        """
        from headspec.checkpoints.building import build_model

        step = self._one(step)
        try:
            tokenizer = self.tokenizer
        except HubUnreachableError:
            raise
        except CheckpointError:
            tokenizer = None
        return build_model(self.source, step, tokenizer, **kwargs)

    def fingerprint(self, step: int) -> str:
        """A hash of the step's weights: from the Hub's metadata; computed from local files."""
        return self.source.fingerprint(self._one(step))

    def checkpoint(self, step: int, *, previous: Checkpoint | None = None) -> Checkpoint:
        """One step, as measures get it."""
        return Checkpoint(self, self._one(step), previous)

    def resolve_steps(self, requested: Iterable[SupportsIndex] | None = None) -> tuple[int, ...]:
        """The requested steps, ascending and once each; all of them for None.

        Raises:
            StepNotFoundError: with every missing step, its nearest ones and the range.
        """
        if requested is None:
            return self.steps
        return check_steps(requested, self.steps, name=self.name)

    @property
    def verification(self) -> pd.DataFrame | None:
        """What the last `verify` returned; None if it has not been called."""
        return self._verification

    def verify(
        self, *, steps: Sequence[int] | None = None, deep: bool | None = None
    ) -> pd.DataFrame:
        """Check every checkpoint before measuring anything.

        Args:
            steps: which steps; None: all.
            deep: read all weights, for NaN and distances. None: yes for local files, no for the
                Hub, where it **downloads every checkpoint in full** (and checks its hash).

        Returns:
            A frame, one row a step, also kept as `verification`. `ok` and `problems` (text) sum
            up: `content_hash` (from the Hub's metadata without download), `duplicate_of` (the
            earliest other step with identical weights; Pythia's steps 0 and 1 are), `missing`
            files, `truncated` (shorter than the header says), `n_nan` and `n_inf` (masks and
            scalar constants not counted), `distance_previous` and `distance_next` to the
            neighbouring steps relative to the weights' norm (estimated from 20,000 entries),
            `detour` and `order` (how well the step lies between its neighbours, see
            `headspec.checkpoints.trajectory`). What was not looked at is NaN.

            A row that is `ok` says that the file is whole and in its place, not that training
            went well.
        """
        chosen = self.resolve_steps(steps)
        if deep is None:
            deep = not isinstance(self.source, HubSource)
        self._verification = verify_source(self.source, steps=chosen, deep=deep)
        return self._verification

    def _one(self, step: int) -> int:
        return check_steps([step], self.steps, name=self.name)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tokenizer": None}

    def __repr__(self) -> str:
        return f"CheckpointSuite({self.name!r}, steps {self.steps[0]} to {self.steps[-1]})"
