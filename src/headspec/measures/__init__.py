"""Ready measures for `headspec.sweep`: what to compute at a checkpoint."""

from headspec.measures.attended_positions import HeadScoreMeasure
from headspec.measures.capabilities import CapabilityMeasure
from headspec.measures.clusters import ClusterMeasure
from headspec.measures.parity import ParityMeasure
from headspec.measures.weight_statistics import WeightMeasure

__all__ = [
    "CapabilityMeasure",
    "ClusterMeasure",
    "HeadScoreMeasure",
    "ParityMeasure",
    "WeightMeasure",
]
