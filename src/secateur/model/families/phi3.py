"""Phi-3: q/k/v and gate/up are one stored tensor each, so nothing is left to group."""

from secateur.model.families import Family

FAMILY = Family(types=("phi3",))
