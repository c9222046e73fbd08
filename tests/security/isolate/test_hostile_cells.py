"""Cells that are out for harm: each ends alone, its neighbour goes on, and the host keeps what it had."""

import asyncio
import os
import time

import pytest
import pytest_asyncio

from handiwork.model.code import CodeLimits, CodeRequest, LimitKind
from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.zygotes import Cause, Shape, Zygote

ID = (1 << 29) + 78 if os.geteuid() == 0 else 0
LIMITS = CodeLimits(cpu_ms=3000, wall_seconds=30)
QUICK = CodeLimits(cpu_ms=600, wall_seconds=30)
RAW = "import os, struct, json\nsay = lambda *parts: os.write(3, b''.join(parts))\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygotes():
    async with (
        await Zygote.start(Shape(language="javascript"), user_id=ID) as javascript,
        await Zygote.start(Shape(language="python"), user_id=ID) as python,
        await Zygote.start(Shape(language="bash"), user_id=ID) as bash,
    ):
        yield {"javascript": javascript, "python": python, "bash": bash}


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def serve(name, argument):
    await asyncio.sleep(0)
    if name == "workspace.tree":
        return {"entries": [], "more": False}
    raise ToolFailedError(f"there is no {name}")


KEPT = {
    "javascript": ("kept = 5", "kept", 5),
    "python": ("kept = 5", "kept", 5),
    "bash": ("kept=5", "echo $kept", {"exit_code": 0, "stdout": "5\n", "stderr": ""}),
}
"""What keeps a global, what shows it, and what that gives."""


async def attacked(zygotes, language, code, limits=LIMITS):
    """Run it, and see that its neighbour does not notice; returns result and cell."""
    zygote = zygotes[language]
    neighbour = await Cell.fork(zygote)
    cell = await Cell.fork(zygote)
    keep, show, kept = KEPT[language]
    await neighbour.run(CodeRequest(code=keep, language=language), serve)
    attack = asyncio.create_task(
        cell.run(CodeRequest(code=code, language=language, limits=limits), serve)
    )
    answers = 0
    while not attack.done():
        result = await neighbour.run(CodeRequest(code=show, language=language), serve)
        assert result.value == kept
        answers += 1
        await asyncio.sleep(0.02)
    assert answers
    neighbour.close()
    assert zygote.alive
    return await attack, cell


BOMBS = {
    "javascript": {
        "heap": "const a = []; for (;;) a.push(new Array(1000).fill(a.length))",
        "buffers": "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
        "text": "let s = 'x'; for (;;) s += s + 'y'",
        "big integers": "let n = 2n; for (;;) n *= n",
        "recursion": "const f = () => f() + 1; f()",
        "regular expressions": "/^(a+)+$/.test('a'.repeat(60) + 'b')",
        "nested JSON": "JSON.parse('['.repeat(1e6))",
        "promises": "for (;;) Promise.resolve().then(() => {})",
        "microtasks": "const again = () => Promise.resolve().then(again); await again()",
        "timers": "for (;;) setTimeout(() => {}, 1e6)",
        "sorting": "const a = Array.from({ length: 1e6 }, (_, i) => i); for (;;) a.sort(() => Math.random() - 0.5)",
        "proxies": "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.x",
        "a getter in the value": "({ get a() { for (;;) {} } })",
        "a deep value": "let v = []; for (let i = 0; i < 1e5; i++) v = [v]; v",
    },
    "python": {
        "heap": "a = []\nwhile True: a.append([0] * 1000)",
        "text": "s = 'x'\nwhile True: s += s",
        "big integers": "n = 3\nwhile True: n *= n",
        "recursion": "f = lambda: f() + 1\nf()",
        "regular expressions": "import re\nre.match('^(a+)+$', 'a' * 60 + 'b')",
        "nested JSON": "import json\njson.loads('[' * 10**6)",
        "one that catches all": "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "native crash": "import ctypes\nctypes.string_at(0)",
        "end of its process": "import os\nos._exit(0)",
        "no way to kill itself": "import os\nos.kill(os.getpid(), 9)",
        "a fork": "import os\nos.fork()",
        "a deep value": "v = []\nfor _ in range(10**5): v = [v]\nv",
    },
    "bash": {
        "a loop": "while :; do :; done",
        "recursion": "f() { f; }; f",
        "recursion by eval": 'x=\'eval "$x"\'; eval "$x"',
        "forks": "f() { f | f & }; f; while :; do f; done",
        "subshells": "(" * 20_000 + ")" * 20_000,
        "substitutions": "echo " + "$(echo " * 5_000 + ")" * 5_000,
        "text": "x=a; while :; do x=$x$x; done",
        "an array": "a=(); while :; do a+=(xxxxxxxx); done",
        "braces": "echo {1..9}{1..99999}{1..99999} | wc -c; while :; do :; done",
        "files": "i=0; while :; do echo $i > f$i; i=$((i + 1)); done",
        "one long file": "while :; do head -c 1000000 /dev/zero >> x; done",
        "regular expressions": "while :; do [[ $(printf 'a%.0s' {1..60})b =~ ^(a+)+$ ]]; done",
        "awk": "awk 'BEGIN { while (1) x = x \"yy\" }'",
        "awk that recurs": "awk 'function f(x) { return f(x + 1) } BEGIN { f(1) }'; while :; do :; done",
        "sed": "while :; do echo a | sed ':a;s/a/aa/;ba'; done",
        "jq": "jq -n '[limit(1e9; repeat(1))] | length'",
        "jq that recurs": "jq -n 'def f: 1 + f; f'",
        "deep JSON": "jq . <<< " + "[" * 50_000,
        "wide output": "printf '%2000000000d' 1; while :; do :; done",
        "numbers": "while :; do echo $((2 ** 62 * 2 ** 62)) > /dev/null; done",
    },
}


@pytest.mark.parametrize(
    ("language", "name"), [(language, name) for language, found in BOMBS.items() for name in found]
)
async def test_a_bomb_harms_itself_alone(zygotes, language, name):
    limits = QUICK if language == "bash" else LIMITS
    result, cell = await attacked(zygotes, language, BOMBS[language][name], limits)
    assert result.error is not None or (language == "bash" and result.value["exit_code"] != 0)
    cell.close()


FRAMES = {
    "a length without end": "say(b'\\xff\\xff\\xff\\xff')",
    "no JSON": "say(struct.pack('<I', 3), b'{{{')",
    "a frame of ours": "say(struct.pack('<I', 11), b'{\"t\":\"run\"}')",
    "half a frame": "say(struct.pack('<I', 1000), b'x')\nos._exit(0)",
    "half a frame, and silence": "say(struct.pack('<I', 1000), b'x')\nimport time\ntime.sleep(60)",
    "frames without end": "while True: say(struct.pack('<I', 12), b'{\"t\":\"turn\"}')",
    "many objects": (
        'text = b\'{"t":"turn","l":[\' + b\',\'.join([b\'["",""]\'] * 10**6) + b\']}\'\n'
        "say(struct.pack('<I', len(text)), text)\nimport time\ntime.sleep(60)"
    ),
    "calls without end": (
        'text = b\'{"t":"turn","c":[\' + b\',\'.join([b\'{"id":1,"n":"x","a":0}\'] * 1000) + b\']}\'\n'
        "while True: say(struct.pack('<I', len(text)), text)"
    ),
    "a deep argument": (
        "deep = b'[' * 400000 + b']' * 400000\n"
        'text = b\'{"t":"turn","c":[{"id":1,"n":"x","a":\' + deep + b\'}]}\'\n'
        "say(struct.pack('<I', len(text)), text)\nimport time\ntime.sleep(60)"
    ),
    "the end, and more": (
        'text = b\'{"t":"done","ok":true}\'\n'
        "say(struct.pack('<I', len(text)), text, struct.pack('<I', len(text)), text)"
    ),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_what_it_says_harms_itself_alone(zygotes, name):
    limits = CodeLimits(cpu_ms=3000, wall_seconds=2)
    result, cell = await attacked(zygotes, "python", RAW + FRAMES[name], limits)
    if name == "the end, and more":
        assert (result.error, result.value) == (None, None)
    else:
        assert result.error is not None
        assert not cell.alive
    cell.close()


async def test_one_that_takes_no_answers_is_ended_in_time(zygotes):
    text = 'b\'{"t":"turn","c":[{"id":1,"n":"x","a":0}]}\''
    code = f"{RAW}text = {text}\nfor _ in range(200): say(struct.pack('<I', len(text)), text)\nimport time\ntime.sleep(60)"

    async def much(name, argument):
        return "x" * (1 << 20)

    cell = await Cell.fork(zygotes["python"])
    limits = CodeLimits(cpu_ms=3000, wall_seconds=1)
    result = await cell.run(CodeRequest(code=code, language="python", limits=limits), much)
    assert result.error.limit is LimitKind.WALL


POLLUTIONS = [
    "Object.prototype.t = 'done'; Object.prototype.ok = true; Object.prototype.v = 'mine'",
    "Array.prototype.push = () => { throw 1 }; Array.prototype[Symbol.iterator] = null",
    "Object.defineProperty(Array.prototype, '0', { set() { throw 1 }, get() { return 'x' } })",
    "Promise.prototype.then = () => {}; globalThis.Promise = null",
    'JSON.stringify = () => \'{"t":"done","ok":true,"v":"mine"}\'; JSON.parse = null',
    "Map.prototype.get = Map.prototype.set = () => { throw 1 }; globalThis.Map = null",
    "String.prototype.replace = String.prototype.includes = String.prototype.slice = () => 'x'",
    "Function.prototype.call = Function.prototype.apply = () => 'x'; Reflect.apply = null",
    "Object.prototype.toJSON = () => 'mine'; Object.prototype.then = (f) => f('mine')",
    "RegExp.prototype.exec = () => null; Symbol.iterator; globalThis.Error = null",
    "Object.setPrototypeOf(Object.prototype, null); globalThis.Object = globalThis.Reflect = null",
]


@pytest.mark.parametrize("pollution", POLLUTIONS)
async def test_globals_of_the_guest_are_not_what_we_speak_with(zygotes, pollution):
    async def told(name, argument):
        return {"name": name}

    cell = await Cell.fork(zygotes["javascript"])
    await cell.run(CodeRequest(code=pollution), told)
    result = await cell.run(CodeRequest(code="(await codemode.a({ x: 1 })).name"), told)
    assert result.value in ("codemode.a", "mine", None)
    assert result.error is None or result.error.limit is None
    assert cell.alive
    cell.close()


@pytest.mark.parametrize("language", ["javascript", "python", "bash"])
async def test_no_two_cells_have_the_same_chance(zygotes, language):
    code = {
        "javascript": "[Math.random(), crypto.randomUUID(), crypto.getRandomValues(new Uint8Array(8)).join()]",
        "python": "import random, uuid, secrets\n[random.random(), str(uuid.uuid4()), secrets.token_hex(8)]",
        "bash": "echo $RANDOM$RANDOM$RANDOM; uuidgen; head -c 8 /dev/urandom | xxd -p",
    }[language]
    cells = [await Cell.fork(zygotes[language]) for _ in range(20)]
    found = [
        (await cell.run(CodeRequest(code=code, language=language), serve)).value for cell in cells
    ]
    if language == "bash":
        found = [value["stdout"].split() for value in found]
    for place in range(3):
        assert len({values[place] for values in found}) == len(cells)
    for cell in cells:
        cell.close()


@pytest.mark.parametrize("language", ["javascript", "python", "bash"])
async def test_a_runaway_is_dead_soon_after_its_limit(zygotes, language):
    code = {
        "javascript": "for (;;) {}",
        "python": "while True: pass",
        "bash": "while :; do :; done",
    }[language]
    limits = CodeLimits(cpu_ms=100, wall_seconds=30)
    cell = await Cell.fork(zygotes[language])
    result = await cell.run(CodeRequest(code=code, language=language, limits=limits), serve)
    end = await cell.gone()
    assert (result.error.limit, end.cause) == (LimitKind.CPU, Cause.CPU)
    assert 0.1 <= end.cpu_seconds < 1  # how soon is for the benchmark to say


async def test_an_interrupt_ends_whatever_it_does(zygotes):
    cell = await Cell.fork(zygotes["python"])
    code = "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
    limits = CodeLimits(cpu_ms=60_000, wall_seconds=60)
    task = asyncio.create_task(
        cell.run(CodeRequest(code=code, language="python", limits=limits), serve)
    )
    await asyncio.sleep(0.1)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await cell.gone()).cause is Cause.DEMAND
    assert time.monotonic() - began < 20


FORGED = (
    "import os, struct\n"
    'text = b\'{"t":"done","ok":true,"v":1}\'\n'
    "os.write(3, struct.pack('<I', len(text)) + text)\n"
)


async def test_who_says_that_it_is_done_and_goes_on_is_ended(zygotes):
    cell = await Cell.fork(zygotes["python"])
    limits = CodeLimits(cpu_ms=50, wall_seconds=1)
    request = CodeRequest(code=f"{FORGED}while True: pass", language="python", limits=limits)
    assert (await cell.run(request, serve)).value == 1
    async with asyncio.timeout(20):
        end = await cell.gone()
    assert (end.cause, end.cpu_seconds < 5) == (Cause.CPU, True)


async def test_one_that_rests_lives_on(zygotes):
    cells = [await Cell.fork(zygote) for zygote in zygotes.values()]
    kept = [KEPT[language] for language in zygotes]
    for cell, language, (keep, _, _) in zip(cells, zygotes, kept, strict=True):
        await cell.run(CodeRequest(code=keep, language=language), serve)
    await asyncio.sleep(2.5)  # longer than from one look to the next
    for cell, language, (_, show, value) in zip(cells, zygotes, kept, strict=True):
        assert cell.is_at_rest()
        assert (await cell.run(CodeRequest(code=show, language=language), serve)).value == value
        cell.close()
