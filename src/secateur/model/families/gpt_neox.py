"""GPT-NeoX (Pythia): q/k/v are one tensor, heads interleaved; attention and MLP run side by side."""

from secateur.model.families import Family

FAMILY = Family(types=("gpt_neox",))
