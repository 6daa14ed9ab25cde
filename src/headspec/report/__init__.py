"""One self-contained page for a study, and its figures as files."""

from headspec.report.content import HypothesisVerdict, ReportFigure, ReportSection, ReportTable
from headspec.report.images import save_figures
from headspec.report.page import write_report

__all__ = [
    "HypothesisVerdict",
    "ReportFigure",
    "ReportSection",
    "ReportTable",
    "save_figures",
    "write_report",
]
