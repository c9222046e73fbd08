"""Documents are kept, listed newest first and archived once."""

import pytest

from handiwork.brains.local import documents
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.paging import page
from handiwork.brains.local.tables import VAULTS


def document(number: int) -> dict:
    moment = f"2026-11-21T00:00:0{number}.000000Z"
    return {
        "id": f"d{number}",
        "created_at": moment,
        "updated_at": moment,
        "archived_at": None,
        "n": number,
    }


async def test_a_document_lives_and_is_archived_once(database):
    def change(connection):
        for number in range(3):
            documents.add(connection, VAULTS, document(number))
        first = documents.read(connection, VAULTS, "vault", "d0")
        documents.archive(connection, VAULTS, first, "t1")
        documents.archive(connection, VAULTS, first, "t2")
        documents.put(connection, VAULTS, {**document(2), "n": 9})

    await database.write(change)
    wanted = page([], limit=20, most=100, order="desc")
    shown = await documents.listed(database, VAULTS, [], wanted)
    assert [(each["id"], each["n"]) for each in shown["data"]] == [("d2", 9), ("d1", 1)]
    everything = await documents.listed(
        database, VAULTS, [("include_archived", "true")], wanted, [VAULTS.c.id != "d1"]
    )
    assert [each["archived_at"] for each in everything["data"]] == [None, "t1"]


async def test_a_missing_document_is_a_404(database):
    with pytest.raises(WireError, match="vault d9 does not exist"):
        await database.read(lambda each: documents.read(each, VAULTS, "vault", "d9"))
