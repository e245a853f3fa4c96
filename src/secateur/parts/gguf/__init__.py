"""GGUF, the files of llama.cpp: what a tensor is called there, what the metadata say, and both ways for each."""
