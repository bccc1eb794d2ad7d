"""The formats of the files of a run: how each is written, read and checked."""
