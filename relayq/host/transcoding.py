"""The runner program of transcode: it looks at the inputs, has ffmpeg work, and looks at its work.

The order comes on standard input, the result goes into the report that the worker reads when this
process has ended. Everything that it says goes to standard error. Asked to end, it ends ffmpeg at
once: nothing half made is kept.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from relayq import clock
from relayq.errors import RelayqError
from relayq.host import drafts, spool
from relayq.host.ffmpeg import Ended, HostsFault, Ran, Tools, as_file, name_of, say
from relayq.host.program import Signals
from relayq.host.progress import tell
from relayq.model import media, mediafiles
from relayq.model.files import is_url
from relayq.model.media import Option
from relayq.model.mediafiles import Expected, Media, Reports
from relayq.model.progress import Progress
from relayq.model.transcoding import UNREPORTED, TranscodePayload

ASKED_TO_END = 143


def main() -> None:
    """Carry out the order on standard input, and exit with 0 if there is an output."""
    signals = Signals()
    # A locale of ASCII mustn't end the run at the first umlaut.
    sys.stderr.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    order = TranscodePayload(**json.load(sys.stdin.buffer))
    sys.exit(Transcoding(order, os.environ, signals).run())


class Transcoding:
    """One order, from its inputs to its report."""

    def __init__(
        self, order: TranscodePayload, environ: Mapping[str, str], signals: Signals
    ) -> None:
        self._order = order
        self._environ = environ
        self._signals = signals
        self._options = order.all_options
        self._input_options = media.read_options(order.input_options)
        self._remarks: list[str] = []
        self._encoder = ""
        self._final = ""

    def run(self) -> int:
        """Carry the order out and leave the report; returns the exit code."""
        try:
            self._tools = Tools(self._environ, self._signals)
            result = self._transcode()
        except Ended:
            return ASKED_TO_END
        except RelayqError as error:
            return self._failed_by(error)
        except OSError as error:
            return self._failed_by(self._failed_to_write(error))
        tell(self._environ, Progress(1.0, at=clock.now()))
        return 0 if self._report({"result": result}) else UNREPORTED

    def _failed_by(self, error: RelayqError) -> int:
        said = f"{error} ({error.hint})" if error.hint else str(error)
        report = {"error": said, "is_hosts": isinstance(error, HostsFault)}
        return 1 if self._report(report) else UNREPORTED

    def _report(self, report: Mapping[str, Any]) -> bool:
        """Leave the report; False where that can't be written."""
        path = self._environ.get("RELAYQ_REPORT")
        try:
            if path:
                spool.replace(path, dict(report))
        except OSError as error:
            say(f"relayq: {report.get('error', '')} The report can't be written: {error}")
            return False
        return True

    # What there is

    def _transcode(self) -> dict[str, Any]:
        order = self._order
        sources = [self._path(one) for one in order.sources]
        for shown, source in zip(order.sources, sources, strict=True):
            _check_input(shown, source)
        if is_url(order.output):
            from relayq.host import uploads

            uploads.check(order.output, overwrite=order.replaces)
            self._final = os.path.abspath("upload" + os.path.splitext(order.output)[1])
        else:
            self._final = self._path(order.output)
            self._check_output(self._final, sources)
        inputs = [self._probe(one) for one in sources]
        asked = mediafiles.expected(
            inputs, self._options, input_options=self._input_options, name=order.output
        )
        self._check_streams(inputs)
        attempt = int(self._environ.get("RELAYQ_ATTEMPT", "1"))
        with drafts.Draft(self._final, job=self._id, attempt=attempt) as draft:
            for source, found in zip(order.sources, inputs, strict=True):
                say(f"{name_of(source)}: {found}")
            began = monotonic()
            ran = self._encode(sources, inputs, draft.path, asked)
            elapsed = monotonic() - began
            made = self._checked(draft.path, asked, ran)
            size = os.stat(draft.path).st_size
            self._deliver(draft)
        return self._result(made, size, elapsed)

    def _deliver(self, draft: drafts.Draft) -> None:
        """Put what was made to where it belongs."""
        order = self._order
        if is_url(order.output):
            from relayq.host import uploads

            say(f"sending it to {order.output}")
            uploads.send(draft.path, order.output, overwrite=order.replaces)
            return
        draft.sync()
        if self._signals.is_asked:
            raise Ended
        draft.settle(overwrite=order.replaces)

    def _path(self, text: str) -> str:
        """Return a path on this host; a URL stays what it is."""
        if is_url(text):
            return text
        if text == "~" or text.startswith("~/"):
            text = (self._environ.get("HOME") or os.path.expanduser("~")) + text[1:]
        return os.path.abspath(text)

    def _check_output(self, final: str, sources: Sequence[str]) -> None:
        """Refuse before anything begins what would be refused at its end."""
        shown = name_of(self._order.target or self._order.output)
        if not os.path.isabs(self._order.output) and not self._order.output.startswith("~"):
            os.makedirs(os.path.dirname(final), exist_ok=True)
        for source in sources:
            with suppress(OSError):
                if os.path.samefile(source, final):
                    raise RelayqError(
                        f"{shown} is its own input", hint="give the output another name"
                    )
        if os.path.isdir(final):
            raise RelayqError(f"{shown} is a directory", hint=f"{shown}/NAME.mp4")
        is_own = drafts.is_made_by(final, self._id)
        if os.path.lexists(final) and not (self._order.replaces or is_own):
            raise drafts.exists(shown)
        directory = os.path.dirname(final)
        if not os.path.isdir(directory):
            raise RelayqError(f"no such directory: {directory}", hint=f"mkdir -p {directory}")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise RelayqError(f"nothing may be written to {directory} on this host")

    def _failed_to_write(self, error: OSError) -> RelayqError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._no_room()
        return RelayqError(f"{self._final} can't be written: {error.strerror or error}")

    def _no_room(self) -> RelayqError:
        where = os.path.dirname(self._final)
        said = f"no room for the output in {where}"
        # In a directory of relayq's own any host will do; else it is this place that is full.
        is_own = not os.path.isabs(self._order.output) and not self._order.output.startswith("~")
        if is_own:
            return HostsFault(said, hint="free some room on that host")
        return RelayqError(said, hint=f"free some room there, then relayq retry {self._id}")

    @property
    def _id(self) -> str:
        return self._environ.get("RELAYQ_JOB_ID", "local")

    def _probe(self, path: str) -> Media:
        """Return what an input is; raw pictures or sound say nothing of themselves."""
        options = [one for one in self._input_options if one.name in ("f", "probesize")]
        if any(one.name == "f" for one in options):
            return Media(())
        return self._tools.probe(path, options)

    def _check_streams(self, inputs: Sequence[Media]) -> None:
        names = {one.name for one in self._options}
        if any(not one.streams for one in inputs):
            return
        if "vn" in names and not any(one.has(mediafiles.AUDIO) for one in inputs):
            raise RelayqError(f"{name_of(self._order.sources[0])} has no sound")

    # The work

    def _encode(
        self,
        sources: Sequence[str],
        inputs: Sequence[Media],
        draft: str,
        asked: Expected,
    ) -> Ran:
        """Have ffmpeg make the draft: by hardware if that is wanted and works, else without."""
        if self._order.wants_hardware:
            for before, options, encoder in self._by_hardware(inputs):
                ran = self._ffmpeg(sources, draft, asked, options, before)
                if ran.code == 0 and not ran.has_no_room:
                    self._encoder = encoder
                    return ran
                if ran.has_no_room:
                    break
                cause = mediafiles.cause_in(ran.messages)
                self._remark(f"{encoder} failed here, and a software encoder took over: {cause}")
        ran = self._ffmpeg(sources, draft, asked, self._options)
        if ran.has_no_room:
            raise self._no_room()
        if ran.code != 0:
            raise self._failed(ran)
        return ran

    def _remark(self, text: str) -> None:
        self._remarks.append(text)
        say(f"relayq: {text}")

    def _by_hardware(self, inputs: Sequence[Media]) -> list[tuple[list[Option], list[Option], str]]:
        """Return the options for the first encoder of hardware that encodes right now, if any."""
        # Imported late: most transcodes leave hardware alone.
        from relayq.host import probes
        from relayq.model import machines

        software = media.video_encoder(self._options) or ""
        wanted = media.stand_ins(software)
        listed = self._tools.encoders() if wanted else []
        _, hardware = machines.encoders_in("\n".join(listed))
        nodes = probes.render_nodes()
        pixels = max((one.pixels_per_second for one in inputs), default=0.0)
        for name in wanted:
            if name not in hardware or (name.endswith(("_vaapi", "_qsv")) and not nodes):
                continue
            given = media.on_hardware(
                self._options,
                name,
                render_node=nodes[0] if nodes else "",
                pixels_per_second=pixels,
            )
            trial = [self._tools.ffmpeg, *machines.trial_of(name, *nodes[:1])]
            if given is not None and self._tools.start(trial, patience=probes.PATIENCE).code == 0:
                return [(*given, name)]
        if wanted:
            self._remark(f"no hardware here encodes what {software} does: {software} does it")
        return []

    def _ffmpeg(
        self,
        sources: Sequence[str],
        draft: str,
        asked: Expected,
        options: Sequence[Option],
        before: Sequence[Option] = (),
    ) -> Ran:
        argv = [self._tools.ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "repeat+warning"]
        argv += ["-progress", "pipe:1", "-y", *media.words_of(before)]
        for source in sources:
            argv += [*media.words_of(self._input_options), "-i", as_file(source)]
        argv += [*media.words_of(options), as_file(draft)]
        encoder = media.video_encoder(options) or media.audio_encoder(options) or ""
        say(f"ffmpeg {shlex.join(media.words_of(options))}".rstrip())
        tell(
            self._environ,
            Progress(0.0 if asked.length else None, text=encoder, at=clock.now()),
            at_once=True,
        )
        reports = Reports()

        def read(line: str) -> None:
            if (report := reports.feed(line)) is not None:
                self._tell(report, asked, encoder)

        return self._tools.start(argv, read=read)

    def _tell(self, report: mediafiles.Report, asked: Expected, text: str) -> None:
        length, speed = asked.length, report.speed
        fraction = None if length is None else min(report.seconds / length, 0.999)
        left = None if length is None else max(length - report.seconds, 0.0)
        tell(
            self._environ,
            Progress(
                fraction,
                text=text if length is not None else f"{text} {report.seconds:.0f} s".strip(),
                eta=left / speed if left is not None and speed else None,
                rate=f"{speed:.2g}x" if speed else "",
                at=clock.now(),
            ),
        )

    # What came of it

    def _failed(self, ran: Ran) -> RelayqError:
        missing = mediafiles.unknown_encoder(ran.messages)
        if missing is None:
            hint = f"relayq logs {self._id} has all that ffmpeg said"
            return RelayqError(f"ffmpeg failed: {mediafiles.cause_in(ran.messages)}", hint=hint)
        names = [words[1] for line in self._tools.encoders() if len(words := line.split()) > 2]
        from difflib import get_close_matches

        close = get_close_matches(missing, names, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        return RelayqError(
            f"the ffmpeg of this host has no encoder {missing!r}{meant}",
            hint=f"--needs encoder:{missing} finds a host that has it; relayq hosts show HOST",
        )

    def _checked(self, path: str, asked: Expected, ran: Ran) -> Media:
        """Return what was made, if it is what was asked for."""
        try:
            made = self._tools.probe(path)
        except RelayqError as error:
            raise RelayqError(f"what ffmpeg made is no media: {error}") from error
        wrong = mediafiles.wrong_with(made, asked, cut=ran.is_cut)
        if wrong and self._order.check:
            raise RelayqError(wrong, hint="if that is as it should be: --no-check, check=False")
        if wrong:
            self._remark(wrong)
        return made

    def _result(self, made: Media, size: int, elapsed: float) -> dict[str, Any]:
        order = self._order
        output = order.target or (order.output if is_url(order.output) else self._final)
        encoder = self._encoder or mediafiles.encoder_of(made, self._options)
        speed = round(made.duration / elapsed, 2) if made.duration and elapsed > 0 else None
        say(f"{name_of(output)}: {made}, {size} bytes, by {encoder} in {elapsed:.1f} s")
        return {
            "output": output,
            "duration": made.duration,
            "size": size,
            "streams": [one.as_dict() for one in made.streams],
            "encoder": encoder,
            "speed": speed,
            "elapsed": round(elapsed, 3),
            **({"remarks": self._remarks} if self._remarks else {}),
        }


def _check_input(shown: str, path: str) -> None:
    if is_url(path):
        return
    name = name_of(shown)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise RelayqError(f"{name} is no file", hint="name a film or a sound")
        with open(path, "rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise RelayqError(
            f"no such input on this host: {path}",
            hint="a file of yours is named without a colon; one of a host as HOST:PATH",
        ) from None
    except OSError as error:
        raise RelayqError(f"{name} can't be read: {error.strerror or error}") from error
    if is_empty:
        raise RelayqError(f"{name} is empty", hint="copy it again; nothing was ever in it")
