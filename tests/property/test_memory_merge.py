"""Two sides edited at random come together, and lose no more than they may."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.attachment import Memory
from handiwork.sessions.memory.merge import Do, Known, delete_cap, plan

PATHS = st.sampled_from([f"p{n}" for n in range(6)])
CONTENT = st.sampled_from("abc")
EDITS = st.lists(st.tuples(PATHS, st.one_of(CONTENT, st.none())), max_size=6)
SIDE = st.dictionaries(PATHS, CONTENT, max_size=6)
ROUNDS = st.lists(st.tuples(EDITS, EDITS, st.booleans()), max_size=6)


class Sides:
    """Both sides, and passes that go as they are planned; some answers never come."""

    def __init__(self, brain, *, read_only):
        self.known, self.here, self.brain = Known(), {}, dict(brain)
        self.read_only, self.now = read_only, 0.0

    def listed(self):
        return {p: Memory(id=p, path=p, sha256=c) for p, c in self.brain.items()}

    def act(self, *, answered=True, final=False):
        todo = plan(
            self.known,
            dict(self.here),
            self.listed(),
            now=self.now,
            read_only=self.read_only,
            final=final,
        )
        if todo.restore:
            assert not todo.actions
            self.known, self.here = Known(), {**self.here, **self.brain}
            self.known.base = dict(self.brain)
            return todo
        for one in todo.actions:
            if one.do is Do.PULL:
                self.here[one.path] = self.brain[one.path]
                self.known.agree(one.path, self.brain[one.path])
            elif one.do is Do.DROP:
                assert self.here[one.path] == one.sha256
                del self.here[one.path]
                self.known.forget(one.path)
            elif one.do is Do.DELETE:
                del self.brain[one.path]
                self.known.forget(one.path)
            else:
                assert self.here[one.path] == one.sha256
                self.known.sent[one.path] = one.sha256
                self.brain[one.path] = one.sha256
                if answered:
                    self.known.agree(one.path, one.sha256)
        self.now += 40
        return todo


def edit(side, edits):
    for path, content in edits:
        if content is None:
            side.pop(path, None)
        else:
            side[path] = content


@given(SIDE, ROUNDS, st.booleans())
def test_what_rests_comes_together(brain, rounds, read_only):
    sides = Sides(brain, read_only=read_only)
    for ours, theirs, answered in rounds:
        sides.act(answered=answered)
        edit(sides.here, ours)
        edit(sides.brain, theirs)
    before = dict(sides.brain)
    for _ in range(4):
        sides.act()
    if read_only:
        assert sides.brain == before
        assert before.items() <= sides.here.items()
    else:
        assert sides.here == sides.brain
        assert not sides.act().actions


@given(SIDE, EDITS)
def test_what_one_side_alone_changed_arrives(brain, edits):
    ours = Sides(brain, read_only=False)
    ours.act()
    edit(ours.here, edits)
    wanted, wiped = dict(ours.here), len(brain) > 1 and not set(brain) & set(ours.here)
    for _ in range(3):
        ours.act()
    assert ours.brain == ({**brain, **wanted} if wiped else wanted)
    theirs = Sides(brain, read_only=False)
    theirs.act()
    edit(theirs.brain, edits)
    wanted = dict(theirs.brain)
    theirs.act()
    assert theirs.here == wanted


@given(SIDE, EDITS, EDITS)
def test_the_brain_wins_what_both_changed(brain, ours, theirs):
    sides = Sides(brain, read_only=False)
    sides.act()
    edit(sides.here, ours)
    edit(sides.brain, theirs)
    fixed = {p: c for p, c in sides.brain.items() if c != brain.get(p)}
    for _ in range(4):
        sides.act()
    assert fixed.items() <= sides.brain.items()
    assert fixed.items() <= sides.here.items()


@given(SIDE, SIDE, SIDE, st.booleans(), st.booleans())
def test_deletes_are_bounded_and_nothing_changes_what_may_only_be_read(
    base, here, brain, read_only, final
):
    known = Known(base=dict(base), missing=dict.fromkeys(base, 0.0))
    listed = {p: Memory(id=p, path=p, sha256=c) for p, c in brain.items()}
    found = plan(known, here, listed, now=100.0, read_only=read_only, final=final)
    kinds = [one.do for one in found.actions]
    assert kinds.count(Do.DELETE) <= delete_cap(len(brain))
    if read_only:
        assert set(kinds) <= {Do.PULL, Do.DROP}
    if len(base) > 1 and not set(base) & set(here):
        assert found.restore
        assert not kinds
    for one in found.actions:
        if one.do is Do.DELETE:
            assert one.path in base
            assert one.path not in here
            assert one.memory.sha256 == base[one.path]
