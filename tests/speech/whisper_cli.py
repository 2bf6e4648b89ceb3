"""A stand-in for whisper.cpp's whisper-cli: its options and its JSON, without its engine.

What it takes, says and writes is what examples/cli/cli.cpp of whisper.cpp has. It is as strict, and
like that it exits with 0 after an option that it doesn't know. It says how long its input is.
"""

import io
import json
import os
import struct
import sys
import time
import wave

WITH_VALUE = "-m -t -l --prompt --beam-size".split()
FLAGS = "-pp -oj -ojf -tr".split()
#: Here it notes what it was called with, and finds how long it takes for a step.
HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    given, arguments = {"-f": [], "-of": []}, sys.argv[1:]
    while arguments:
        name = arguments.pop(0)
        if name in ("-f", "-of"):
            given[name].append(arguments.pop(0))
        elif name in WITH_VALUE:
            given[name] = arguments.pop(0)
        elif name in FLAGS:
            given[name] = True
        else:
            print(f"error: unknown argument: {name}", file=sys.stderr)
            sys.exit(0)
    with open(given["-m"], "rb") as model:
        if model.read(4) != b"lmgg":
            print("error: failed to initialize whisper context", file=sys.stderr)
            sys.exit(3)
    with open(f"{HERE}/seen", "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    for path, stem in zip(given["-f"], given["-of"], strict=True):
        transcribe(path, stem, given)


def transcribe(path, stem, given):
    with open(path, "rb") as file:
        raw = file.read()
    with wave.open(io.BytesIO(raw)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16000, 1, 2)
        length = sound.getnframes() * 1000 // 16000
    assert len(raw) == 44 + struct.unpack("<I", raw[40:44])[0]
    seconds = length / 1000
    print(f"main: processing '{path}' ({length * 16} samples, {seconds:.1f} sec)", file=sys.stderr)
    for percent in range(0, 101, 20):
        print(f"whisper_print_progress_callback: progress = {percent:3d}%", file=sys.stderr)
        sys.stderr.flush()
        if os.path.exists(f"{HERE}/pause"):
            with open(f"{HERE}/pause") as file:
                time.sleep(float(file.read()))  # noqa: TID251
    language = "de" if given["-l"] == "auto" else given["-l"]
    text = " Good day to you." if given.get("-tr") else " Guten Tag allerseits."
    entry = {**times(0, length), "text": text}
    if given.get("-ojf"):
        tokens = [("[_BEG_]", 0, 0), (" Guten", 0, 400), (" Tag", 400, 700)]
        tokens += [(" aller", 700, 900), ("seits", 900, 1200), (".", 1200, 1300)]
        entry["tokens"] = [
            {"text": token, **times(start, end), "id": 1, "p": 0.5, "t_dtw": -1}
            for token, start, end in tokens
        ]
    shown = {
        "systeminfo": "AVX = 1",
        "model": {"type": "base", "multilingual": True},
        "params": {"model": given["-m"], "language": given["-l"], "translate": "-tr" in given},
        "result": {"language": language},
        "transcription": [entry],
    }
    with open(f"{stem}.json", "w") as file:
        json.dump(shown, file, indent="\t")


def times(start, end):
    stamps = {"from": f"00:00:0{start // 1000},{start % 1000:03d}", "to": "00:00:09,000"}
    return {"timestamps": stamps, "offsets": {"from": start, "to": end}}


main()
