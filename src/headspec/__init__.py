"""headspec: when attention heads specialise, what differs, and whether it matters.

Public names resolve on first use, so `import headspec` loads neither torch nor plotly; the stub
beside this file lists them, for type checkers and at run time alike.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
