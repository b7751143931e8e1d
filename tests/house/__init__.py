"""The law of the house: layers, limits, no pickles, no machine paths."""
