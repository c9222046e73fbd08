"""Canonical hosts, authorities and paths, as the data plane calls them.

They live in the model because a policy's patterns are held to the same forms.
"""

from handiwork.model.canonical import (
    NotCanonical,
    canonical_host,
    canonical_path,
    is_address,
    split_authority,
)

__all__ = ["NotCanonical", "canonical_host", "canonical_path", "is_address", "split_authority"]
