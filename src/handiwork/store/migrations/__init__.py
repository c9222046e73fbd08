"""The steps that bring a database file to the schema of `store/tables.py`, oldest first."""
