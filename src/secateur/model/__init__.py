"""The patient: what is on disk, what can be cut, and how to run and watch it block by block."""
