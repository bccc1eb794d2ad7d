"""Data sets: where pictures come from, how they are split, varied and served in batches."""
