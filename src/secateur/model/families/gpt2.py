"""GPT-2: every linear layer is a Conv1D (stored inputs x outputs), q/k/v are one tensor, positions are learned."""

from secateur.model.families import Family

FAMILY = Family(types=("gpt2",))
