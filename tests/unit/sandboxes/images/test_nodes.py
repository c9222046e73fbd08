"""A tree is walked in one order."""

from handiwork.sandboxes.images.nodes import Extent, Node, directory, walk


def test_parents_come_first_and_names_in_order():
    root = directory()
    root.children[b"b"] = Node(kind="file", mode=0o644, content=Extent(0, 0, 7))
    root.children[b"a"] = directory()
    root.children[b"a"].children[b"c"] = Node(kind="file", mode=0o644, content=b"abc")
    assert [(path, node.size) for path, node in walk(root)] == [(b"a", 0), (b"a/c", 3), (b"b", 7)]
