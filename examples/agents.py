"""Have an AI agent answer: `python examples/agents.py claude`; without a name nothing is asked."""

import sys

from relayq import NeedsHuman, job

PROMPT = "In one sentence: what is a message queue?"

if len(sys.argv) < 2:
    # An agent's answer costs something, so this only says what would be queued.
    spec = job.plan("run_agent", agent="claude", prompt=PROMPT, wait_for_host=True)
    print(spec.queue, spec.payload)
else:
    result = job.agent(sys.argv[1], PROMPT, permission="read_only", timeout="5m")
    try:
        print(result.get())
    except NeedsHuman as error:
        print(error.question, *enumerate(result.record.choices, 1), sep="\n")
    else:
        answer = result.agent
        print(answer.session_id, answer.turns, answer.usage.total, answer.cost_usd)
