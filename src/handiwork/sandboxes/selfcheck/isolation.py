"""Checks of the walls: no way out, nothing of the host, no privilege. Each has a positive control."""

from handiwork.sandboxes.selfcheck.table import Bench, check, expect, hold


@check("isolation")
async def _there_is_only_loopback(bench: Bench) -> None:
    result = await bench.shell("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
    expect(result.stdout, b"lo\n", "network devices")


@check("isolation")
async def _loopback_works_and_nothing_leaves(bench: Bench) -> None:
    script = (
        "import socket\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname(), 3); a = s.accept()[0]\n"
        "a.send(b'hi'); print(c.recv(2))\n"
        "for target in (('192.0.2.1', 80), ('1.1.1.1', 443), ('169.254.169.254', 80)):\n"
        "    try:\n"
        "        c = socket.create_connection(target, 3); c.send(b'x'); d = c.recv(1)\n"
        "        print('sent' if d else 'closed')\n"
        "    except OSError: print('closed')\n"
    )
    result = await bench.run("python3", "-c", script)
    expect(result.stdout, b"b'hi'\nclosed\nclosed\nclosed\n", "connections")


@check("isolation")
async def _names_are_not_resolved_without_an_exit(bench: Bench) -> None:
    result = await bench.shell("getent hosts localhost | wc -l; getent hosts example.com; echo $?")
    expect(result.stdout, b"1\n2\n", "localhost found, example.com not")


@check("isolation")
async def _other_protocols_fail_at_once(bench: Bench) -> None:
    script = (
        # A datagram may be refused to its sender as on any network: by the answer that nobody is there.
        "import socket\n"
        "for kind in ((2, 2, 0), (2, 3, 1), (17, 3, 0), (40, 1, 0)):\n"
        "    try:\n"
        "        s = socket.socket(*kind); s.settimeout(5); s.connect(('192.0.2.1', 123))\n"
        "        s.send(b'x'); s.recv(1); print('answered')\n"
        "    except TimeoutError: print('lost')\n"
        "    except (OSError, TypeError, ValueError): print('refused')\n"
    )
    result = await bench.run("python3", "-c", script)
    expect(result.stdout, b"refused\n" * 4, "datagrams, raw, packet and vsock sockets")


@check("isolation")
async def _nothing_private_of_the_host_is_there(bench: Bench) -> None:
    script = (
        "ls -A /root /home | grep -v -e '^/' -e '^$' -e '^made$';"
        " ls -d /etc/shadow /etc/gshadow /etc/ssh /etc/sudoers /etc/machine-id 2>/dev/null;"
        " ls /etc/passwd"
    )
    expect((await bench.shell(script)).stdout, b"/etc/passwd\n", "files of the host")


@check("isolation")
async def _only_our_own_processes_are_seen(bench: Bench) -> None:
    result = await bench.shell("cd /proc; ls -d [0-9]* | wc -l")
    count = int(result.stdout.split()[0])
    hold(1 < count < 20, f"{count} processes are seen")
    script = "cat /proc/1/environ 2>/dev/null | tr -d '\\0' | wc -c; kill -9 1; echo $?"
    expect((await bench.shell(script)).stdout, b"0\n0\n", "reading and killing pid 1")
    script = (
        "for f in /proc/1/mem /proc/1/fd/*; do (exec 9<>$f) 2>/dev/null && readlink $f; done; true"
    )
    for told in (await bench.shell(script)).stdout.split():
        # Pipes are those of commands, which root inside may look into anyway.
        hold(told.startswith((b"/dev/null", b"pipe:", b"/proc/1/oom")), f"{told!r} could be opened")
    expect((await bench.shell("echo alive")).stdout, b"alive\n", "after kill -9 1")


@check("isolation")
async def _no_capability_reaches_the_host(bench: Bench) -> None:
    status = (await bench.shell("cat /proc/self/status")).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    asked = "import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))"  # PR_GET_NO_NEW_PRIVS
    expect((await bench.run("python3", "-c", asked)).stdout, b"1\n", "no_new_privs")
    expect(fields["Seccomp"], "2", "seccomp mode")
    held = int(fields["CapBnd"], 16)
    # chown 0, dac_override 1, fowner 3, fsetid 4, kill 5, setgid 6, setuid 7, net_bind 10, setfcap 31
    allowed = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 10, 31))
    expect(held & ~allowed, 0, "capabilities beyond the list")


@check("isolation")
async def _it_cannot_mount_or_make_namespaces(bench: Bench) -> None:
    script = (
        "for call in 'mount -t tmpfs none /mnt' 'umount /tmp' 'unshare -U true' 'unshare -n true'"
        " 'nsenter -t 1 -n true' 'chroot / true' 'mknod /tmp/disk b 8 0' 'hostname other';"
        ' do $call >/dev/null 2>&1 && echo "$call"; done; true'
    )
    expect((await bench.shell(script)).stdout, b"", "what was done")
    expect((await bench.shell("touch /tmp/control && echo ok")).stdout, b"ok\n", "control")


@check("isolation")
async def _the_kernel_is_not_written_to(bench: Bench) -> None:
    script = (
        # What is a device stands for nothing: /dev/null over the kernel's file.
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches"
        " /sys/kernel/uevent_helper /proc/sys/net/ipv4/ip_forward;"
        " do test -c $f || { (echo x > $f) 2>/dev/null && echo $f; }; done;"
        # Only a /usr that is lent is read-only; one of an image is the sandbox's to change.
        " if grep -q ' /usr ' /proc/mounts; then (echo x > /usr/bin/planted) 2>/dev/null && echo /usr;"
        " fi; true"
    )
    expect((await bench.shell(script)).stdout, b"", "what was written")


@check("isolation")
async def _own_processes_are_debugged_and_never_the_agent(bench: Bench) -> None:
    script = (
        "import ctypes, errno, os, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def trace(request, pid):\n"
        "    failed = libc.ptrace(request, pid, None, None) < 0\n"
        "    return errno.errorcode[ctypes.get_errno()] if failed else 'ok'\n"
        "told = ctypes.create_string_buffer(b'of child')\n"
        "def peek(pid):\n"
        "    libc.ptrace.restype = ctypes.c_long\n"
        "    found = libc.ptrace(2, pid, ctypes.c_long(ctypes.addressof(told)), None)\n"
        "    return found.to_bytes(8, 'little', signed=True)\n"
        "child = os.fork()\n"
        "if not child: time.sleep(60)\n"
        "print(trace(16, child), os.waitpid(child, 0)[0] == child, peek(child).decode())\n"
        "os.kill(child, 9)\n"
        "print(trace(16, 1), trace(0x4206, 1))\n"
    )
    result = await bench.run("python3", "-c", script)
    expect(result.stdout, b"ok True of child\nEPERM EPERM\n", "tracing a child, and pid 1")


@check("isolation")
async def _open_descriptors_are_three(bench: Bench) -> None:
    result = await bench.run("ls", "/proc/self/fd")
    expect(result.stdout, b"0\n1\n2\n3\n", "descriptors (3 is the directory being read)")
