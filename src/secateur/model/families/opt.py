"""OPT: learned positions, biases everywhere, a plain two-layer MLP."""

from secateur.model.families import QKV, Family

FAMILY = Family(types=("opt",), groups=(QKV,))
