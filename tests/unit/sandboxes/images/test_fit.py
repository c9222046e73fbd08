"""What is added to a tree, and the certificates found in it."""

from handiwork.sandboxes.images.fit import CA_BUNDLE, bundle, find, fit
from handiwork.sandboxes.images.nodes import Node, directory


def link(target):
    return Node(kind="link", mode=0o777, target=target)


def file(content):
    return Node(kind="file", mode=0o644, content=content)


def test_mount_points_and_names_are_added():
    root = directory()
    fit(root)
    assert root.children[b"tmp"].mode == 0o1777
    assert find(root, b"etc/resolv.conf").content.startswith(b"nameserver 127.0.0.1\n")
    assert find(root, b"etc/apt/apt.conf.d/10sandbox") is None
    root.children[b"etc"].children[b"apt"] = apt = directory()
    apt.children[b"apt.conf.d"] = directory()
    fit(root)
    assert b"Sandbox::User" in find(root, b"etc/apt/apt.conf.d/10sandbox").content


def test_a_link_in_a_files_place_is_replaced_and_not_followed():
    root = directory()
    root.children[b"etc"] = etc = directory()
    root.children[b"run"] = run = directory()
    run.children[b"stub"] = file(b"host's")
    etc.children[b"resolv.conf"] = link(b"../run/stub")
    fit(root)
    assert etc.children[b"resolv.conf"].kind == "file"
    assert run.children[b"stub"].content == b"host's"


def test_links_stay_in_the_tree():
    root = directory()
    root.children[b"etc"] = etc = directory()
    etc.children[b"f"] = file(b"mine")
    for target in (b"../../../../etc/f", b"/etc/f", b"etc/./f"):
        root.children[b"l"] = link(target)
        assert find(root, b"l").content == b"mine"
    root.children[b"loop"] = link(b"loop")
    assert find(root, b"loop") is None
    assert find(root, b"etc/none") is None
    assert find(root, b"etc/f/x") is None


def test_certificates_are_those_of_the_tree():
    root = directory()
    assert bundle(root) == b""
    place = root
    for part in CA_BUNDLE.split(b"/")[:-1]:
        place.children[part] = directory()
        place = place.children[part]
    place.children[CA_BUNDLE.split(b"/")[-1]] = link(b"/roots.pem")
    assert bundle(root) == b""
    root.children[b"roots.pem"] = file(b"ROOTS")
    assert bundle(root) == b"ROOTS"
    root.children[b"roots.pem"] = file(b"x" * (5 << 20))
    assert bundle(root) == b""
