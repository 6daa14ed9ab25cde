"""Small multiples laid out in pixels, once for a wide screen and once for a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from headspec.plots.palette import INK, TEMPLATE

TITLE_HEIGHT = 44
LEGEND_LINE = 22
BAR_HEIGHT = 56


def legend_lines(names: Sequence[str], *, width: int) -> int:
    """Lines that a legend takes: in more than one, every entry is as wide as the widest."""
    widths = [42 + 6.2 * len(name) for name in names]
    if not names or sum(widths) <= width:
        return 1
    return -(-len(names) // max(1, int(width / max(widths))))


@dataclass(frozen=True)
class Panels:
    """Where the panels of a figure go.

    Attributes:
        titles: one title a panel, left to right, top to bottom.
        columns, narrow_columns: panels side by side on a wide screen and on a phone.
        height, narrow_height: height of one panel's plotting area in pixels.
        gap: pixels between rows, room for tick labels and the next panel's title.
        gap_share: share of the width between columns.
        legend_lines, narrow_legend_lines: lines kept free above the panels for the legend.
        footer: pixels below the last row, for tick labels, axis title and colour bar.
        left: pixels left of the first column.
        bar: whether a colour bar lies below, for which the footer is made higher.
        share_y: whether only the first column names its y axis.
        shares: height of each panel as a share of `height`; None: all are alike. The highest
            panel of a row gives the row its height, lower ones keep to its top.
    """

    titles: Sequence[str]
    columns: int = 2
    narrow_columns: int = 1
    height: int = 170
    narrow_height: int = 150
    gap: int = 62
    gap_share: float = 0.1
    legend_lines: int = 1
    narrow_legend_lines: int = 3
    footer: int = 56
    left: int = 68
    bar: bool = False
    share_y: bool = False
    shares: Sequence[float] | None = None

    def axis(self, kind: str, index: int) -> str:
        """The layout key of a panel's axis: `xaxis`, `xaxis2`, ..."""
        return f"{kind}axis{index + 1 if index else ''}"

    def names(self, index: int) -> dict[str, str]:
        """The axes of a panel as a trace names them."""
        end = str(index + 1) if index else ""
        return {"xaxis": f"x{end}", "yaxis": f"y{end}"}

    def is_bottom(self, index: int, *, narrow: bool = False) -> bool:
        """Whether no panel lies below this one."""
        return index + (self.narrow_columns if narrow else self.columns) >= len(self.titles)

    def is_left(self, index: int, *, narrow: bool = False) -> bool:
        """Whether a panel stands in the first column."""
        return index % (self.narrow_columns if narrow else self.columns) == 0

    def _inner(self, *, narrow: bool = False) -> int:
        """Pixels from the top of the first row to the bottom of the last."""
        heights = self._heights(narrow=narrow)
        return sum(heights) + (len(heights) - 1) * self.gap

    def _heights(self, *, narrow: bool = False) -> list[int]:
        """Pixels of each row."""
        columns = min(self.narrow_columns if narrow else self.columns, len(self.titles))
        height = self.narrow_height if narrow else self.height
        shares = self.shares or [1.0] * len(self.titles)
        starts = range(0, len(shares), columns)
        return [round(height * max(shares[start : start + columns])) for start in starts]

    def below(self, *, narrow: bool = False) -> float:
        """Where the colour bar's upper edge lies under the panels, in shares of their height."""
        return self.footer / self._inner(narrow=narrow)

    def layout(self, *, narrow: bool = False) -> dict:
        """Height, margins, legend and axis domains as a layout (part)."""
        columns = min(self.narrow_columns if narrow else self.columns, len(self.titles))
        heights = self._heights(narrow=narrow)
        height = self.narrow_height if narrow else self.height
        lines = self.narrow_legend_lines if narrow else self.legend_lines
        inner = self._inner(narrow=narrow)
        footer = self.footer + (BAR_HEIGHT if self.bar else 0)
        top = TITLE_HEIGHT + LEGEND_LINE * lines + 30
        gap = self.gap_share
        width = (1 - gap * (columns - 1)) / columns
        layout: dict = {
            "height": inner + top + footer,
            "margin": {"t": top, "b": footer, "l": self.left, "r": 16},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1 + 28 / inner,
                "yanchor": "bottom",
            },
        }
        if self.bar:
            layout["coloraxis"] = {"colorbar": {"y": -self.below(narrow=narrow)}}
        for i in range(len(self.titles)):
            row, column = divmod(i, columns)
            high = 1 - (sum(heights[:row]) + row * self.gap) / inner
            left = column * (width + gap)
            layout[self.axis("x", i)] = {"domain": [left, min(1.0, left + width)]}
            own = heights[row] if self.shares is None else round(height * self.shares[i])
            layout[self.axis("y", i)] = {"domain": [max(0.0, high - own / inner), high]}
        return layout

    def figure(
        self, *, title: str, x_title: str, y_titles: Sequence[str], alt: str, note: str
    ) -> go.Figure:
        """An empty figure with these panels, titles of panels and axes, and both layouts.

        The narrow layout, the text alternative `alt`, the caption `note` and the height of the
        title lie in `layout.meta["headspec"]`.
        """
        wide, narrow = self.layout(), self.layout(narrow=True)
        figure = go.Figure(layout={"template": TEMPLATE, "title": {"text": title, "y": 1}})
        figure.update_layout(wide, title={"yref": "container", "yanchor": "top", "pad": {"t": 12}})
        for i, text in enumerate(self.titles):
            names = self.names(i)
            figure.update_layout(
                {
                    self.axis("x", i): {
                        "anchor": names["yaxis"],
                        "title": {"text": x_title if self.is_bottom(i) else ""},
                    },
                    self.axis("y", i): {"anchor": names["xaxis"], "title": {"text": y_titles[i]}},
                }
            )
            shown = {"text": x_title if self.is_bottom(i, narrow=True) else ""}
            narrow[self.axis("x", i)]["title"] = shown
            if self.share_y:
                for layout, is_left in (
                    (figure.layout, self.is_left(i)),
                    (narrow, self.is_left(i, narrow=True)),
                ):
                    layout[self.axis("y", i)]["title"] = {"text": y_titles[i] if is_left else ""}
            figure.add_annotation(
                text=text,
                xref=f"{names['xaxis']} domain",
                yref=f"{names['yaxis']} domain",
                x=0,
                y=1,
                xanchor="left",
                yanchor="bottom",
                yshift=4,
                showarrow=False,
                align="left",
                font={"size": 13, "color": INK},
            )
        figure.layout.meta = {
            "headspec": {
                "alt": alt,
                "note": note,
                "narrow": narrow,
                "title_height": TITLE_HEIGHT,
            }
        }
        return figure
