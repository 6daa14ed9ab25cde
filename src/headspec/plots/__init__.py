"""Figures of results: frames in, plotly figures out, nothing computed and no model touched.

Every figure carries its own template (plotly's global default is left alone), a text alternative
and a layout for narrow screens in `layout.meta["headspec"]`; `headspec.report` uses all three.
"""

from headspec.plots.activation_heatmap import plot_activation_heatmap
from headspec.plots.attention_change import plot_attention_change
from headspec.plots.attention_heatmap import plot_attention_heatmaps
from headspec.plots.attention_pattern import plot_attention_pattern
from headspec.plots.capabilities import plot_capability_curves
from headspec.plots.class_accuracy_curves import plot_class_accuracy
from headspec.plots.detector_rules import plot_detector_battery
from headspec.plots.dimension_curves import plot_dimensionality
from headspec.plots.emergence import plot_emergence_map
from headspec.plots.emergence_pair import plot_emergence_comparison
from headspec.plots.entropy_evolution import plot_entropy_evolution
from headspec.plots.factorial import plot_factorial_effects
from headspec.plots.filters import plot_filters
from headspec.plots.head_comparison import plot_attention_heads_comparison
from headspec.plots.head_effects import plot_head_effects
from headspec.plots.jump_coordination_rows import plot_jump_coordination
from headspec.plots.jump_effect_rows import plot_jump_effects
from headspec.plots.jump_loss_rows import plot_loss_around_jumps
from headspec.plots.jump_rate_rows import plot_jump_rates
from headspec.plots.jump_share_rows import plot_early_late
from headspec.plots.jump_strip import plot_jump_overview
from headspec.plots.jump_type_scatter import plot_jump_types
from headspec.plots.parity_null import plot_parity_null
from headspec.plots.parity_rates import plot_success_rates
from headspec.plots.parity_timeline import plot_parity_timeline
from headspec.plots.probe_curves import plot_probe_curves
from headspec.plots.projection import plot_head_projection
from headspec.plots.rate_forest import plot_size_forest
from headspec.plots.rate_heatmap import plot_rate_heatmap
from headspec.plots.similarity import plot_similarity_heatmaps
from headspec.plots.similarity_strip import plot_similarity_across
from headspec.plots.specialisation import plot_cluster_effects
from headspec.plots.swaps import plot_swap_null
from headspec.plots.timeline import plot_metric_timeline
from headspec.plots.topic_correction import plot_correction
from headspec.plots.weight_composition import plot_composition
from headspec.plots.weight_spectra import plot_spectra
from headspec.plots.weight_timeline import plot_weight_timeline
from headspec.plots.window import TransitionLike

__all__ = [
    "TransitionLike",
    "plot_activation_heatmap",
    "plot_attention_change",
    "plot_attention_heads_comparison",
    "plot_attention_heatmaps",
    "plot_attention_pattern",
    "plot_capability_curves",
    "plot_class_accuracy",
    "plot_cluster_effects",
    "plot_composition",
    "plot_correction",
    "plot_detector_battery",
    "plot_dimensionality",
    "plot_early_late",
    "plot_emergence_comparison",
    "plot_emergence_map",
    "plot_entropy_evolution",
    "plot_factorial_effects",
    "plot_filters",
    "plot_head_effects",
    "plot_head_projection",
    "plot_jump_coordination",
    "plot_jump_effects",
    "plot_jump_overview",
    "plot_jump_rates",
    "plot_jump_types",
    "plot_loss_around_jumps",
    "plot_metric_timeline",
    "plot_parity_null",
    "plot_parity_timeline",
    "plot_probe_curves",
    "plot_rate_heatmap",
    "plot_similarity_across",
    "plot_similarity_heatmaps",
    "plot_size_forest",
    "plot_spectra",
    "plot_success_rates",
    "plot_swap_null",
    "plot_weight_timeline",
]
