from .head_weights import HeadWeights as HeadWeights
from .head_weights import Rotary as Rotary
from .layouts import LAYOUTS as LAYOUTS
from .layouts import Layout as Layout
