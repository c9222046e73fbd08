"""What runs in a cell of Python: nothing but the standard library, and no module of ours outside of here.

The zygote has all of it before its first fork; `cell/PROTOCOL.md` says what it speaks with the host.
"""
