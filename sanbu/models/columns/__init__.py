"""Models of the cells of a table: each column given others. `columns.py` has the contract."""
