"""Ready measures for `headspec.sweep`: what to compute at a checkpoint."""

from headspec.measures.clusters import ClusterMeasure
from headspec.measures.parity import ParityMeasure

__all__ = ["ClusterMeasure", "ParityMeasure"]
