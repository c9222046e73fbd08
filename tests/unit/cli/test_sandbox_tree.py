"""`handiwork sandbox get-tree` and `put-tree`: a tar by files and by the standard streams."""


def test_out_and_in(api, handiwork, typed, tmp_path) -> None:
    sandbox_id = handiwork("sandbox", "create").out.strip()
    files = api.served.sandboxes.live[sandbox_id].files
    files.content = {"/workspace": None, "/workspace/f": b"in it", "/workspace/p|": b""}
    told = handiwork("sandbox", "get-tree", sandbox_id, "/workspace", str(tmp_path / "out.tar"))
    assert (told.code, told.out) == (0, "")
    assert told.err == "handiwork: left out: ./workspace/p|: a FIFO\n"
    assert (
        handiwork("sandbox", "get-tree", sandbox_id, "/workspace").out.encode()
        == (tmp_path / "out.tar").read_bytes()
    )
    typed((tmp_path / "out.tar").read_bytes())
    assert handiwork("sandbox", "put-tree", sandbox_id, "/new").code == 0
    assert files.content["/new/workspace/f"] == b"in it"
    again = handiwork("sandbox", "put-tree", sandbox_id, "/again", str(tmp_path / "out.tar"))
    assert again.code == 0
    assert files.content["/again/workspace/f"] == b"in it"
    typed(b"no archive" * 100)
    told = handiwork("sandbox", "put-tree", sandbox_id, "/new")
    assert (told.code, told.out) == (2, "")
    assert "entries up to there is unpacked" in told.err
