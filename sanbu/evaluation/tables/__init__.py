"""How good generated rows of a table are: utility, a two-sample test, distances, copies. A file for each idea.

cells_BC are rows as in sanbu.codecs.columns. Everything is measured on held-out rows; scales come from training rows.
"""
