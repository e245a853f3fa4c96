"""Reading exports back: what measuring needs as well lies on a lower floor, in `parts/reading.py`."""

from secateur.parts.reading import Reading, network, open_reading, read_model, tokenizer_of

__all__ = ["Reading", "network", "open_reading", "read_model", "tokenizer_of"]
