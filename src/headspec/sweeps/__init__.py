"""A measure at every step of a suite."""

from headspec.sweeps.run import SweepError, UnverifiedSuiteWarning, sweep

__all__ = ["SweepError", "UnverifiedSuiteWarning", "sweep"]
