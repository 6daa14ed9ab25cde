from .head_weights import HeadWeights as HeadWeights
from .head_weights import Rotary as Rotary
