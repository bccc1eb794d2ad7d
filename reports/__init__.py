"""What a person sees: the progress of a run, tables, plots."""
