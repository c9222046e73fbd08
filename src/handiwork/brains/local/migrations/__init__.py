"""Revisions of the local brain's schema, for Alembic."""
