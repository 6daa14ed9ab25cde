"""Figures as files: interactive HTML, and PNG through kaleido and a Chrome or Chromium."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from headspec.errors import HeadspecError, InputError

Format = Literal["html", "png"]
WIDTH, SCALE = 960, 2

_INSTALL = (
    "Install `headspec[png]` and a Chrome or Chromium (Debian: apt install chromium; or run "
    "`kaleido_get_chrome`); BROWSER_PATH names one that is not on the PATH. HTML needs neither."
)


def save_figures(
    figures: Mapping[str, go.Figure],
    folder: str | Path,
    *,
    formats: Sequence[Format] = ("html", "png"),
) -> list[Path]:
    """Write each figure as `NAME.html` and `NAME.png` into a folder.

    HTML files share one `plotly.min.js` beside them and work without a network. PNGs are drawn
    by Chrome in one go, 960 pixels wide at twice the density, from pages that load nothing.

    Args:
        figures: figures by file name, without suffix.
        folder: made if missing; files of the same name are replaced, whole or not at all.
        formats: `"html"`, `"png"` or both.

    Returns:
        The paths written, figure by figure.

    Raises:
        InputError: for an unknown format or a name that is no file name.
        HeadspecError: for PNG without kaleido or without a Chrome or Chromium.
    """
    folder = Path(folder)
    _check(figures, formats)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".drawing-") as scratch:
        made = []
        if "html" in formats:
            for name, figure in figures.items():
                _write_html(figure, Path(scratch) / f"{name}.html")
        if "png" in formats and figures:
            _write_pngs(figures, Path(scratch))
        if "html" in formats and figures:
            os.replace(Path(scratch) / "plotly.min.js", folder / "plotly.min.js")
        for name in figures:
            for kind in formats:
                os.replace(Path(scratch) / f"{name}.{kind}", folder / f"{name}.{kind}")
                made.append(folder / f"{name}.{kind}")
    return made


def _check(figures: Mapping[str, go.Figure], formats: Sequence[str]) -> None:
    unknown = [kind for kind in formats if kind not in ("html", "png")]
    if unknown or not formats:
        raise InputError(
            expected='formats out of "html" and "png"',
            got=f"{list(formats)}",
            fix="Leave `formats` out for both.",
        )
    for name in figures:
        if not name or Path(name).name != name or name.startswith("."):
            raise InputError(
                expected="plain file names without folder or suffix",
                got=f"{name!r}",
                fix="Name figures like `timeline_layer_3`.",
            )


def _write_html(figure: go.Figure, path: Path) -> None:
    figure.write_html(path, include_plotlyjs="directory", config={"displaylogo": False})


def _write_pngs(figures: Mapping[str, go.Figure], folder: Path) -> None:
    try:
        import kaleido
        from choreographer.errors import BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise HeadspecError(
            expected="kaleido, to write PNG", got="no such package", fix=_INSTALL
        ) from error
    layouts: dict[str, Any] = {name: figure.layout for name, figure in figures.items()}
    drawn: list[Any] = [
        {
            "fig": figure,
            "path": folder / f"{name}.png",
            "opts": {
                "format": "png",
                "width": layouts[name].width or WIDTH,
                "height": layouts[name].height or 500,
                "scale": SCALE,
            },
        }
        for name, figure in figures.items()
    ]
    try:
        # Without mathjax=False kaleido's page would load MathJax from a server.
        kaleido.write_fig_from_object_sync(drawn, kopts={"mathjax": False})
    except (ChromeNotFoundError, BrowserFailedError) as error:
        raise HeadspecError(
            expected="a Chrome or Chromium that starts, to write PNG",
            got=f"none ({type(error).__name__})",
            fix=_INSTALL,
        ) from error
