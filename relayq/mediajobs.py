"""Jobs that make media of media, for who asks: where the files are, and what comes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.config import install_id
from relayq.errors import RelayqError, Unplaceable
from relayq.filejobs import check_free
from relayq.model.files import FileOut
from relayq.model.locations import Luggage, read_location

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.results import JobResult

KIND = "transcode"
#: Kinds whose files `get` brings here: they are what was asked for.
BRINGING = frozenset({KIND, "transcribe"})
#: How long a worker that has just started may take to find its encoders.
_START_PATIENCE = 20.0
_LOOK = 0.25
#: What ffmpeg opens by itself, as far as it has read; the rest is fetched before it begins.
_STREAMS = ("http://", "https://", "ftp://", "rtmp://", "rtmps://", "rtsp://", "srt://", "udp://")
_Path = str | os.PathLike[str]


class OfMedia:
    """What a `Job` can do with video and sound."""

    relay: Relay

    #: What the client itself has.
    submit: Callable[..., JobResult]
    plan: Callable[..., Any]

    def transcode(
        self,
        inputs: _Path | Sequence[_Path],
        output: _Path,
        options: str | Sequence[str] = (),
        **asked: Any,
    ) -> JobResult:
        """Queue a transcode by ffmpeg: `job.transcode("talk.mov", "talk.mp4", preset="web")`.

        `inputs` is one or several files: your own ("talk.mov"), one on a host ("mini:talk.mov",
        ":/mnt/talk.mov" on whatever host runs it), or a URL; `output` likewise. `options` are
        ffmpeg's for the output, as text quoted as for a shell ("-crf 23 -vf 'scale=640:-2'") or as
        a list; no shell sees them. They come after those of the `preset` (`relayq transcode
        --presets`) and win; `input_options` come before each input. `hw="auto"` has the host's
        hardware encode if that works there, "off" never; else the preset says. An output that
        exists is refused unless `overwrite`, one that is shorter than its inputs fails unless
        `check=False`. The rest is as for `submit`.

        `get` returns what was made, `{"output", "duration", "size", "streams", "encoder", "speed",
        "elapsed"}`, with your own output in its place.
        """
        return self.submit(KIND, **self.asked_of_transcode(inputs, output, options, **asked))

    def asked_of_transcode(
        self,
        inputs: _Path | Sequence[_Path],
        output: _Path,
        options: str | Sequence[str] = (),
        *,
        overwrite: bool = False,
        host: str | None = None,
        files_in: Iterable[Any] = (),
        files_out: Iterable[Any] = (),
        waits: bool = True,
        **asked: Any,
    ) -> dict[str, Any]:
        """Return the keywords of `submit` for a transcode.

        If it `waits`, a worker that has just started has found its encoders by then.
        """
        sources = [inputs] if isinstance(inputs, str | os.PathLike) else [*inputs]
        if not sources:
            raise RelayqError("there is no input", hint="relayq transcode IN OUT")
        luggage = Luggage()
        texts = [os.fspath(one) for one in sources]
        target = os.fspath(output)
        _check_apart(texts, target, overwrite=overwrite)
        paths = [luggage.take(one, reads_urls=one.lower().startswith(_STREAMS)) for one in texts]
        made = luggage.bring(target)
        place = read_location(target)
        host = one_host(luggage.host, host, asked.get("on"))
        given = {
            "inputs": paths[0] if len(paths) == 1 else paths,
            "output": made,
            "options": options if isinstance(options, str) else list(options),
            "target": os.path.abspath(os.path.expanduser(target)) if place.is_here else None,
            "replaces": overwrite or None,
            "files_in": [*files_in, *luggage.files_in],
            "files_out": [*files_out, *luggage.files_out],
            "overwrite": overwrite,
            "host": host,
        }
        given = {name: value for name, value in given.items() if value not in (None, [], "")}
        keywords = {**given, **asked}
        if waits:
            self._until_known(keywords)
        return keywords

    def _until_known(self, keywords: dict[str, Any]) -> None:
        """Wait until a worker that was just started with this fleet has found its encoders."""
        relay = self.relay
        if not relay.is_own_fleet or keywords.get("wait_for_host"):
            return
        relay.session()
        from relayq import embedded

        pid = embedded.worker_pid(relay.config)
        if pid is None:
            return
        import psutil

        try:
            until = psutil.Process(pid).create_time() + _START_PATIENCE
        except psutil.NoSuchProcess:
            return
        while clock.now() < until:
            try:
                self.plan(KIND, **keywords)
            except Unplaceable:
                clock.sleep(_LOOK)
            else:
                return


def sent_by(
    job: OfMedia, pairs: Iterable[tuple[Sequence[str], str]], asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the keywords of `submit` for each pair of inputs and their output, all checked."""
    made: list[dict[str, Any]] = []
    for inputs, output in pairs:
        # One that is known for the first is known for all.
        made.append(job.asked_of_transcode(inputs, output, waits=not made, **asked))
    return made


def _check_apart(inputs: Sequence[str], output: str, *, overwrite: bool) -> None:
    """Refuse here what needs no host to be seen."""
    place = read_location(output)
    if not place.is_here:
        return
    if place.path.endswith("/") or os.path.isdir(os.path.expanduser(place.path)):
        raise RelayqError(
            f"{output} is a directory", hint=f"relayq transcode ... --to {output}, or name a file"
        )
    path = os.path.expanduser(place.path)
    here = (os.path.expanduser(one.path) for one in map(read_location, inputs) if one.is_here)
    if os.path.exists(path) and any(
        os.path.exists(one) and os.path.samefile(one, path) for one in here
    ):
        raise RelayqError(f"{output} is its own input", hint="give the output another name")
    check_free(os.path.abspath(path), overwrite=overwrite)


def one_host(files: str | None, host: str | None, on: Iterable[str] | str | None) -> str | None:
    """Return the host that a job is for, of what was asked and of where its files are."""
    if files is None:
        return host
    asked = host or ([on] if isinstance(on, str) else [*(on or ())])
    if asked and asked not in (files, [files]):
        where = host or ", ".join(asked)
        raise RelayqError(
            f"its files are on {files}, and it is to run on {where}",
            hint=f"--on {files}, or :PATH for a path that every host has",
        )
    return None if asked and not host else files


def bring(result: JobResult) -> None:
    """Bring the files of a job that succeeded to their places, on the machine that asked."""
    record, session = result.record, result._session
    if record.kind not in BRINGING or record.spec is None or session.config is None:
        return
    own = install_id(session.config.home)
    outs = [FileOut.from_dict(one) for one in record.spec.files_out]
    if any(one.dest and one.at == own for one in outs):
        result.fetch()


def batch(
    inputs: Sequence[str], directory: str, *, preset: str | None = None, ending: str | None = None
) -> list[tuple[str, str]]:
    """Return each input with its output in a directory; RelayqError where two would be one.

    The ending is the preset's where none is given, else the input's own.
    """
    if not ending and preset is not None and preset not in ("copy", "remux"):
        # Every command imports this module, and this is for one of them.
        from relayq.model import media

        ending = media.find_preset(preset).ending
    pairs: dict[str, str] = {}
    for text in inputs:
        stem, own = os.path.splitext(read_location(text).name)
        name = f"{stem}.{ending.lstrip('.')}" if ending else f"{stem}{own}"
        output = f"{directory.rstrip('/')}/{name}" if directory.strip("/") else f"/{name}"
        if output in pairs:
            raise RelayqError(
                f"{pairs[output]} and {text} would both be {output}",
                hint="transcode them apart, each with its own output",
            )
        pairs[output] = text
    return [(text, output) for output, text in pairs.items()]
