"""Every table carries its tenant."""

import pytest

from handiwork.brains.local.tables import METADATA


@pytest.mark.parametrize("name", sorted(METADATA.tables))
def test_every_table_has_a_tenant(name):
    assert not METADATA.tables[name].c.tenant_id.nullable
