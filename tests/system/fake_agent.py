#!/usr/bin/env python3
"""A nasty agent that speaks claude's stream-json; FAKE in its environment says what it does.

FAKE is a list of steps, or two: `first`, and `again` for a resumed session.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time


def pause(seconds):
    select.select([], [], [], seconds)


def content(path):
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


def say(**event):
    print(json.dumps(event), flush=True)


def session():
    for flag in ("--resume", "--session-id"):
        if flag in sys.argv:
            return sys.argv[sys.argv.index(flag) + 1]
    return "none"


def text(words):
    say(type="assistant", message={"content": [{"type": "text", "text": words}]})


def result(words="done", **more):
    facts = {"subtype": "success", "is_error": False, "num_turns": 1, "total_cost_usd": 0.25}
    usage = {"input_tokens": 10, "output_tokens": 5}
    say(type="result", result=words, session_id=session(), usage=usage, **{**facts, **more})


def retry(delay, attempt=1):
    facts = {"attempt": attempt, "max_retries": 99, "error_status": 429, "error": "rate_limit"}
    say(type="system", subtype="api_retry", retry_delay_ms=delay * 1000, **facts)


def note(prompt, **more):
    with open(os.environ.get("NOTES", os.devnull), "a") as file:
        facts = {"args": sys.argv[1:], "session": session(), "prompt": prompt, "cwd": os.getcwd()}
        file.write(json.dumps({**facts, "env": dict(os.environ), **more}) + "\n")


def analyse():
    """Report each line with BUG in the files that the prompt lists; lines with @ say how."""
    began, prompt = time.monotonic(), sys.stdin.read()
    files = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
    known = os.path.join(os.environ["MARKS"], f"session-{session()}")
    if files:
        with open(known, "w") as file:
            json.dump(files, file)
    else:
        files = json.loads(content(known) or "[]")
    lines = {path: content(path).splitlines() for path in files}
    all_lines = [line for one in lines.values() for line in one]
    orders = [words for line in all_lines if "@" in line and (words := line.split("@")[1].split())]
    issues = [
        {
            **{"file": path, "line": number, "severity": "high", "category": "bug"},
            **{"title": line.strip(), "detail": f"{path} has one"},
        }
        for path in files
        for number, line in enumerate(lines[path], 1)
        if "BUG" in line
    ]
    for path in files:
        call = {"type": "tool_use", "id": path, "name": "Read", "input": {"file_path": path}}
        say(type="assistant", message={"content": [call]})
        back = {"type": "tool_result", "tool_use_id": path, "content": "x"}
        say(type="user", message={"content": [back]})
    answer = {"issues": issues, "files_analyzed": files}
    words, facts = json.dumps(answer), {"structured_output": answer}
    for order, *value in orders:
        mark = os.path.join(os.environ["MARKS"], f"{order}-{'-'.join(value)}")
        if order == "wait":
            while not os.path.exists(mark):
                pause(0.02)
        elif order == "once":
            # The first session that meets it dies; a later one finds the mark.
            if not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        elif order == "slow":
            pause(float(value[0]))
        elif order == "nonsense":
            words, facts = "I have looked, and all is well.", {}
        elif order == "prose":
            words, facts = f"Here you are:\n```json\n{words}\n```\nSo much for that.", {}
        elif order == "most" and len(files) > int(value[0]):
            words = "Prompt is too long"
            facts = {"is_error": True, "terminal_reason": "prompt_too_long"}
        elif order == "break":
            words = "There's an issue with the selected model (fake)"
            facts = {"is_error": True, "api_error_status": 404}
        elif order == "turns" and "--resume" not in sys.argv:
            words, facts = None, {"subtype": "error_max_turns", "is_error": True}
    note(prompt, files=files, began=began, ended=time.monotonic())
    result(words, **facts)


def do(step, *values):
    match step:
        case "init":
            given = values[0] if values else session()
            say(type="system", subtype="init", session_id=given, model="fake", cwd=os.getcwd())
        case "read":
            note(sys.stdin.read())
        case "analyse":
            analyse()
        case "text":
            text(*(values or ["on"]))
        case "use":
            call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}
            say(type="assistant", message={"content": [call]})
            back = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
            say(type="user", message={"content": [back]})
        case "result":
            result(*values)
        case "refused":
            denial = {"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"command": "rm x"}}
            result("I may not", permission_denials=[denial])
        case "error":
            result(None, subtype="error_during_execution", is_error=True, errors=list(values))
        case "needs key":
            if os.environ.get("ANTHROPIC_API_KEY") != values[0]:
                result(None, is_error=True, errors=["Not logged in · Please run /login"])
                os._exit(1)
        case "deaf":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        case "sleep":
            pause(values[0])
        case "retry":
            retry(*values)
        case "retry for ever":
            for attempt in range(10**6):
                retry(0.1, attempt)
                pause(0.1)
        case "chatter":
            for number in range(10**6):
                text(f"still here {number}")
                pause(0.05)
        case "big line":
            sys.stdout.write('{"type":"user","text":"' + "x" * values[0] + '"}\n')
            sys.stdout.flush()
        case "garbage":
            sys.stdout.buffer.write(b"\xff\xfe{\x00}\n{half\n[1,2]\n\x1b[2Jnull\n")
            sys.stdout.flush()
        case "mute":
            os.close(1)
        case "shout":
            sys.stderr.write(values[0] + "\n")
            sys.stderr.flush()
        case "child":
            # A tool's shell: a session of its own, deaf, with our output still open.
            line = f"trap '' TERM HUP; echo $$ > {values[0]}; while :; do sleep 1; done"
            subprocess.Popen(["sh", "-c", line], start_new_session=True)
            while not content(values[0]):
                pause(0.01)
        case "daemon":
            line = f"(setsid sh -c 'echo $$ > {values[0]}; exec sleep 600' &)"
            quiet = subprocess.DEVNULL
            subprocess.run(["/bin/sh", "-c", line], env={}, stdout=quiet, stderr=quiet)
        case "ask":
            desk = os.environ["RELAYQ_DESK"]
            os.makedirs(desk, exist_ok=True)
            with open(f"{desk}/draft", "w") as file:
                json.dump({"id": "q1", "text": "Blue or red?", "choices": ["blue", "red"]}, file)
            os.rename(f"{desk}/draft", f"{desk}/question.json")
            while not content(f"{desk}/answer.json"):
                pause(0.02)
            text(json.loads(content(f"{desk}/answer.json"))["text"])
        case "exit":
            os._exit(values[0])
        case "die":
            os.kill(os.getpid(), values[0])
        case "tell":
            text(f"it is {os.environ.get(values[0], 'nothing')}")
            result(os.environ.get(values[0], "nothing"))
        case "write":
            with open(values[0], "a") as file:
                file.write(values[1])
        case "wait for":
            while not os.path.exists(values[0]):
                pause(0.02)


def steps():
    script = json.loads(os.environ["FAKE"])
    if isinstance(script, dict):
        return script["again" if "--resume" in sys.argv else "first"]
    return script


for one in steps():
    do(*one) if isinstance(one, list) else do(one)
