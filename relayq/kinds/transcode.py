"""transcode: one video or sound made of others by ffmpeg, looked at before it counts.

The process is the runner program of `relayq.host.transcoding`, which gets its order on standard
input and leaves a report. No shell sees an option.
"""

from __future__ import annotations

import json
import os.path
import sys
from dataclasses import asdict

from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.kinds.command import expand
from relayq.model.jobs import JobState, Reason
from relayq.model.transcoding import UNREPORTED, TranscodePayload

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@kind("transcode")
class Transcode:
    """Make a video or sound of others."""

    Payload = TranscodePayload

    def plan(self, payload: TranscodePayload, host: HostFacts) -> Command:
        """Return the runner program with its order."""
        code = (
            f"import sys; sys.path.insert(0, {_ROOT!r}); "
            "from relayq.host.transcoding import main; main()"
        )
        return Command(
            argv=(sys.executable, "-I", "-c", code),
            cwd=expand(payload.cwd, host.home, host.scratch),
            stdin=json.dumps(asdict(payload)).encode(),
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return what the runner reported, else how it ended."""
        match ended.report:
            case {"result": dict(result)} if ended.exit_code == 0:
                return Verdict(JobState.SUCCEEDED, Reason.EXIT, result=result)
            case {"error": str(said), **rest}:
                is_hosts = rest.get("is_hosts") is True
                reason = Reason.HOST if is_hosts else Reason.EXIT
                return Verdict(JobState.FAILED, reason, error=said)
        error = ended.error
        if ended.exit_code == UNREPORTED:
            said = "its host has no room even for its report"
            return Verdict(JobState.FAILED, Reason.HOST, error=said)
        if ended.reason == Reason.EXIT:
            error = error or f"its runner ended without a report (exit code {ended.exit_code})"
        return Verdict(JobState.FAILED, ended.reason, error=error)
