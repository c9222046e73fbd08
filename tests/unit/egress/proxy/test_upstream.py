"""The pool keeps few connections, not for long, and never a dead one."""

from handiwork.egress.proxy.dial import Destination
from handiwork.egress.proxy.upstream import MAX_PER_DESTINATION, Pool, Upstream

HERE = Destination("https", "a.example.org", 443)
THERE = Destination("https", "b.example.org", 443)


class Transport:
    aborted = False

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


def connection(to: Destination = HERE) -> Upstream:
    made = Upstream(to)
    made.connection_made(Transport())  # type: ignore[arg-type]
    return made


def test_the_newest_for_the_same_destination_is_taken():
    pool = Pool(max_idle=10, idle_seconds=5)
    first, second = connection(), connection()
    pool.give(first, 1.0)
    pool.give(second, 2.0)
    assert pool.take(THERE, 2.0) is None
    assert pool.take(HERE, 2.0) is second
    assert pool.take(HERE, 2.0) is first
    assert pool.take(HERE, 2.0) is None


def test_the_old_and_the_dead_are_not_taken():
    pool = Pool(max_idle=10, idle_seconds=5)
    old, dead = connection(), connection()
    pool.give(old, 0.0)
    pool.give(dead, 4.0)
    dead.connection_lost(None)
    assert pool.take(HERE, 6.0) is None
    assert old.transport.is_closing()


def test_numbers_are_bounded():
    pool = Pool(max_idle=MAX_PER_DESTINATION + 1, idle_seconds=5)
    given = [connection() for _ in range(MAX_PER_DESTINATION + 1)]
    others = [connection(THERE) for _ in range(2)]
    for made in (*given, *others):
        pool.give(made, 0.0)
    assert [made.transport.is_closing() for made in given] == [False] * MAX_PER_DESTINATION + [True]
    assert [made.transport.is_closing() for made in others] == [False, True]


def test_a_sweep_closes_what_is_old_and_close_closes_all():
    pool = Pool(max_idle=10, idle_seconds=5)
    old, young = connection(), connection(THERE)
    pool.give(old, 0.0)
    pool.give(young, 4.0)
    pool.sweep(6.0)
    assert (old.transport.is_closing(), young.transport.is_closing()) == (True, False)
    pool.close()
    assert young.transport.is_closing()


def test_bytes_that_nobody_asked_for_end_the_connection():
    idle = connection()
    idle.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    assert idle.transport.is_closing()
