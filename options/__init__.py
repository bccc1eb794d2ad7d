"""What options are: how one is declared, the kinds of their values, sets of them that go together. Imports no torch."""
