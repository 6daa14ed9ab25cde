"""Results: tidy frames, and files that give them back exactly, with where they come from.

Two formats, chosen by the suffix. `.json` is text that any tool reads. `.parquet` holds the tidy
frame as a table (of a result object: its `to_frame()`), and the object itself in the file's
metadata. Both carry a `Provenance` and checksums, and are written whole or not at all.
"""

from headspec.results.frames import TIDY_COLUMNS, tidy
from headspec.results.provenance import Provenance
from headspec.results.saving import load, load_provenance, save

__all__ = ["TIDY_COLUMNS", "Provenance", "load", "load_provenance", "save", "tidy"]
