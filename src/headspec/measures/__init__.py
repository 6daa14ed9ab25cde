"""Ready measures for `headspec.sweep`: what to compute at a checkpoint."""

from headspec.measures.clusters import ClusterMeasure

__all__ = ["ClusterMeasure"]
