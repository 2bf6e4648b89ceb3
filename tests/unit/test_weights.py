"""Where the models of speech engines lie, and how a missing one of whisper.cpp gets here."""

import http.server
import threading

import pytest

from relayq.errors import RelayqError
from relayq.host.engines import weights

GGML = b"lmgg" + bytes(3_000_000)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A directory of models with one of each form, and an empty cache of the hub."""
    models = tmp_path / "models"
    for folder in ("mine", "models--Systran--faster-whisper-tiny/snapshots/1", "unfinished"):
        (models / folder).mkdir(parents=True)
    (models / "mine" / "model.bin").touch()
    for file in ("model.bin", "config.json"):
        (models / "models--Systran--faster-whisper-tiny/snapshots/1" / file).touch()
    (models / "ggml-small.bin").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return models


@pytest.fixture
def environ(tmp_path):
    return {"HF_HOME": str(tmp_path / "cache")}


def cache(environ, folder):
    from pathlib import Path

    snapshot = Path(environ["HF_HOME"], "hub", folder, "snapshots", "abc")
    snapshot.mkdir(parents=True)
    (snapshot / "model.bin").touch()
    (snapshot / "config.json").touch()
    return snapshot


def test_the_directory_is_below_the_home_unless_the_variable_names_another():
    assert weights.directory({}, "/home/ann/.relayq") == "/home/ann/.relayq/models"
    assert weights.directory({"RELAYQ_MODELS": "/srv/m"}, "/home/ann/.relayq") == "/srv/m"


def test_models_at_hand_are_known_by_engine(models, environ):
    cache(environ, "models--mobiuslabsgmbh--faster-whisper-large-v3-turbo")
    cache(environ, "models--somebody--else")

    assert weights.at_hand(str(models), environ) == {
        "faster-whisper": ["large-v3-turbo", "mine", "somebody/else", "tiny"],
        "whisper.cpp": ["small"],
    }


def test_what_a_cut_download_left_is_no_model(models, environ):
    (cache(environ, "models--Systran--faster-whisper-base") / "config.json").unlink()

    assert weights.find_faster("base", str(models), environ) == ""


def test_nothing_is_at_hand_where_there_is_no_directory(tmp_path, environ):
    assert weights.at_hand(str(tmp_path / "none"), environ) == {}


def test_a_model_is_found_by_each_of_its_names(models, environ):
    turbo = cache(environ, "models--mobiuslabsgmbh--faster-whisper-large-v3-turbo")

    assert weights.find_faster("mine", str(models), environ) == str(models / "mine")
    assert weights.find_faster("tiny", str(models), environ).endswith("snapshots/1")
    assert weights.find_faster("turbo", str(models), environ) == str(turbo)
    assert weights.find_faster("unfinished", str(models), environ) == ""
    assert weights.find_cpp("small", str(models)) == str(models / "ggml-small.bin")
    assert weights.find_cpp("base", str(models)) == ""


# Downloads


class Hub(http.server.BaseHTTPRequestHandler):
    """Has ggml-base.bin, a page instead of ggml-tiny.bin, and half of ggml-medium.bin."""

    def do_GET(self):
        bodies = {"base": GGML, "tiny": b"<html>", "medium": GGML[:1000]}
        name = self.path.rpartition("/ggml-")[2].removesuffix(".bin")
        if name not in bodies or not self.path.startswith("/ggerganov/whisper.cpp/resolve/main/"):
            self.send_error(404)
            return
        self.send_response(200)
        length = len(GGML) if name == "medium" else len(bodies[name])
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(bodies[name])

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(environ):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = False  # their connections are closed before the test ends
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield {**environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_downloaded_whole_with_its_progress(tmp_path, hub):
    told = []

    path = weights.fetch_cpp(
        "base", str(tmp_path / "m"), hub, progress=lambda done, total: told.append((done, total))
    )

    assert path == weights.find_cpp("base", str(tmp_path / "m"))
    with open(path, "rb") as file:
        assert file.read() == GGML
    assert told[-1] == (len(GGML), len(GGML))
    assert len(told) > 1


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("tiny", "is no model of whisper.cpp"),
        ("medium", r"ended after 1000 of \d+ bytes|IncompleteRead"),
        ("large-v3", "404"),
    ],
)
def test_what_is_no_whole_model_is_not_kept(tmp_path, hub, model, why):
    with pytest.raises(RelayqError, match=f"can't be downloaded: .*({why})") as told:
        weights.fetch_cpp(model, str(tmp_path), hub)

    assert list(tmp_path.glob("*ggml*")) == []
    assert told.value.hint.startswith("put it at ")


def test_offline_nothing_is_asked_and_the_models_at_hand_are_named(models, hub):
    with pytest.raises(RelayqError, match=r"HF_HUB_OFFLINE is set \(this host has small\)") as told:
        weights.fetch_cpp("base", str(models), {**hub, "HF_HUB_OFFLINE": "1"})

    assert told.value.hint == "--model small"


def test_a_model_that_nobody_publishes_is_not_asked_for(models, environ):
    with pytest.raises(RelayqError, match="no such model: 'smal'; did you mean small"):
        weights.fetch_cpp("smal", str(models), environ)
