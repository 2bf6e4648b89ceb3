"""Transcode a directory: `python examples/transcode_batch.py films small`."""

import sys
from pathlib import Path

from relayq import JobFailed, job
from relayq.model.media import PRESETS

if len(sys.argv) < 3:
    # A film takes its time, so this only says what there is to choose from.
    for name, preset in PRESETS.items():
        print(f"{name}: {preset.says}")
else:
    films, small = Path(sys.argv[1]), Path(sys.argv[2])
    small.mkdir(exist_ok=True)
    results = [
        job.transcode(film, small / f"{film.stem}.mp4", preset="h264-small", group="films")
        for film in sorted(films.iterdir())
        if not (small / f"{film.stem}.mp4").exists()
    ]
    for result in results:
        try:
            made = result.get()
            print(f"{made['output']}: {made['size']} bytes, {made['speed']}x by {made['encoder']}")
        except JobFailed as error:
            print(error)
