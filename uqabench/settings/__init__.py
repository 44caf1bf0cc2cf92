"""The settings of a run and the types of what it writes. Nothing here imports torch."""
