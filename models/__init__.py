"""The networks: where exits lie, how networks are named, and the network itself.

`exits` and `names` are plain Python, so that a bad name is refused before PyTorch is imported.
"""
