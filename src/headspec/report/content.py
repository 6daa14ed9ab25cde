"""What a report is made of. Every text is plain: whatever looks like HTML is shown as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from headspec.studies.hypotheses import HypothesisVerdict

__all__ = ["HypothesisVerdict", "ReportFigure", "ReportSection", "ReportTable"]


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its words.

    Attributes:
        figure: a plotly figure; those of `headspec.plots` also reflow on a phone.
        title: stands above it; None for the figure's own title.
        caption: how to read it; None for what the plot function wrote.
        alt: the figure in words, for those who do not see it; None for what the plot function
            wrote.
    """

    figure: go.Figure
    title: str | None = None
    caption: str | None = None
    alt: str | None = None


@dataclass(frozen=True)
class ReportTable:
    """A table; its first column names the rows.

    Attributes:
        frame: the rows. The index is not shown.
        title: stands above it.
        caption: how to read it.
        formats: format specifications by column, such as `{"silhouette": ".2f"}`; other numbers
            get three significant digits, p-values below .001 are shown as such.
    """

    frame: pd.DataFrame
    title: str
    caption: str = ""
    formats: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportSection:
    """A heading with text, then figures and tables.

    Attributes:
        title: the heading.
        text: paragraphs, parted by blank lines.
        figures, tables: shown below the text, in this order.
        folded: whether the section is closed until the reader opens it.
    """

    title: str
    text: str = ""
    figures: Sequence[ReportFigure] = ()
    tables: Sequence[ReportTable] = ()
    folded: bool = False
