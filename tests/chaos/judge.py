"""What a run must hold: every session ended, no call ran twice, no result was lost."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from chaos.world import Run, Session
from handiwork.sessions.calls import CUT_SHORT

RESULTS = ("user.tool_result", "user.custom_tool_result", "agent.tool_result")


@dataclass
class Verdict:
    """What was wrong, and what was seen."""

    problems: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


def judge(run: Run) -> Verdict:
    """Look at a whole run."""
    verdict = Verdict(problems=list(run.faults))
    begun = Counter(words[1] for words in run.runs if words[0] == "begin")
    answers = {words[1]: words[2] for words in run.runs if words[0] == "end"}
    for call, times in begun.items():
        if times > 1:
            verdict.problems.append(f"{call} ran {times} times")
    commands: Counter[str] = Counter()
    for session in run.sessions:
        _judge_session(session, run, begun, answers, verdict, commands)
    for key, times in run.lines.items():
        if times > commands[key]:
            verdict.problems.append(
                f"the command {key} ran {times} times for {commands[key]} calls"
            )
    verdict.seen["sessions"] = len(run.sessions)
    verdict.seen["deaths"] = run.deaths
    verdict.seen["faults"] = run.done.total()
    return verdict


def _judge_session(
    session: Session,
    run: Run,
    begun: Counter[str],
    answers: dict[str, str],
    verdict: Verdict,
    commands: Counter[str],
) -> None:
    name = session.story.name
    if not session.ended:
        last = session.events[-1].type if session.events else "nothing"
        verdict.problems.append(f"{name} ({session.id}) did not end; the last event is {last}")
    uses = [e for e in session.events if e.type in ("agent.tool_use", "agent.custom_tool_use")]
    results: dict[str, list[Any]] = {}
    for event in session.events:
        if event.type in RESULTS:
            results.setdefault(_about(event), []).append(event)
    for use in uses:
        verdict.seen["calls"] += 1
        custom = use.type == "agent.custom_tool_use"
        if not custom:
            commands[use.input["command"].split()[1]] += 1
        told = results.get(use.id, [])
        interrupted = session.story.kind == "interrupt"
        if len(told) != 1 and not (interrupted and custom and not told):
            verdict.problems.append(f"{name}: {use.id} has {len(told)} results")
            continue
        text = _text(told[0]) if told else "nothing"
        _judge_answer(name, use, text, run, begun, answers, verdict)


def _judge_answer(
    name: str,
    use: Any,
    text: str,
    run: Run,
    begun: Counter[str],
    answers: dict[str, str],
    verdict: Verdict,
) -> None:
    if text == CUT_SHORT:
        verdict.seen["cut short"] += 1
    elif text == "Interrupted by the user." or text == "nothing":
        verdict.seen["interrupted"] += 1
    elif text.startswith("The user refused this call."):
        verdict.seen["refused"] += 1
        if begun[use.id]:
            verdict.problems.append(f"{name}: {use.id} ran though it was refused")
    elif use.type == "agent.custom_tool_use":
        if begun[use.id] != 1 or answers.get(use.id) != text:
            verdict.problems.append(f"{name}: {use.id} is answered {text!r}, not by its only run")
    elif not text.startswith(use.input["command"].split()[1] + " "):
        verdict.problems.append(f"{name}: the command of {use.id} is answered {text!r}")
    kept = run.stored.get(use.id)
    settled = text in ("Interrupted by the user.", "nothing")
    if kept is not None and kept != text and not settled:
        verdict.problems.append(f"{name}: {use.id} had {kept!r} stored and is answered {text!r}")


def _about(event: Any) -> str:
    return getattr(event, "tool_use_id", None) or event.custom_tool_use_id


def _text(event: Any) -> str:
    return event.content[0].text
