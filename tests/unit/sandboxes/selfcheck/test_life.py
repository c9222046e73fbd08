"""A tier that loses, keeps or mixes up sandboxes is found out."""

import pytest

from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import FakeDriver


class Forgets(FakeDriver):
    async def sleep(self, sandbox_id):
        await super().sleep(sandbox_id)
        for name in [name for name in self.states[sandbox_id] if name.startswith("/workspace/")]:
            del self.states[sandbox_id][name]


class Keeps(FakeDriver):
    async def destroy(self, sandbox_id):
        self._stop(sandbox_id)


class Reuses(FakeDriver):
    async def create(self, spec):
        self.states.pop(spec.id, None)
        return await super().create(spec)


class Invents(FakeDriver):
    async def restore(self, spec):
        if spec.id not in self.states:
            return await self.create(spec)
        return await super().restore(spec)


class Shares(FakeDriver):
    async def create(self, spec):
        made = await super().create(spec)
        made.files.tree = next(iter(self.states.values()))
        return made


class ForksOneTree(FakeDriver):
    async def fork(self, source, target):
        self.states[target] = self.states[source]


class ForksNothing(FakeDriver):
    async def fork(self, source, target):
        self.states[target] = {"": self.states[source][""]}


class ForksOnLoan(FakeDriver):
    async def fork(self, source, target):
        await super().fork(source, target)
        self.lent = {**getattr(self, "lent", {}), source: target}

    async def destroy(self, sandbox_id):
        await super().destroy(sandbox_id)
        self.states.pop(getattr(self, "lent", {}).get(sandbox_id), None)


class ForksOver(FakeDriver):
    async def fork(self, source, target):
        if source != target:
            await super().fork(source, target)


class ForksThoughItCannot(FakeDriver):
    def can_fork(self, sandbox_id):
        return False


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        (Forgets, "sleep and restore keep files"),
        (Keeps, "destroy leaves nothing"),
        (Reuses, "an id is used once"),
        (Invents, "a missing state is not restored"),
        (Shares, "sandboxes do not see each other"),
        (ForksOneTree, "forks have the files and are apart"),
        (ForksNothing, "forks have the files and are apart"),
        (ForksThoughItCannot, "forks have the files and are apart"),
        (ForksOnLoan, "a fork outlives what it is of"),
        (ForksOver, "a fork outlives what it is of"),
    ],
)
async def test_found_out(driver, name):
    found = [made async for made in selfcheck(driver(), areas=["life"])]
    assert name in [made.name for made in found if not made.ok]
