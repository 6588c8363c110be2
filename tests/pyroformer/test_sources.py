"""Where files of data are looked for, in which order, and what a download leaves behind, whole or not."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pyroformer.inference import DataError
from pyroformer.tasks import sources
from pyroformer.tasks.sources import Publication, find

FILES = {"a.gz": b"alpha" * 1000, "b.gz": b"beta" * 1000}
WANTED = Publication(
    name="set", files={name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in FILES.items()}
)


def fill(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def places(nowhere, monkeypatch, tmp_path):
    """The five places, in their order, each a folder that holds nothing yet."""
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    fill(tmp_path / "site" / "shipping_set", {"__init__.py": b"raise RuntimeError('imported')"})
    publication = replace(WANTED, folders=(str(tmp_path / "system"),), package=("shipping_set", "data/set"))
    found = [tmp_path / "mine", tmp_path / "data" / "set", tmp_path / "system"]
    return publication, [*found, tmp_path / "site" / "shipping_set" / "data" / "set", tmp_path / "cache" / "set"]


def test_the_first_place_that_holds_the_files_is_taken(places):
    publication, folders = places
    origins = ["cache", "package shipping_set", "system folder", "PYROFORMER_DATA"]
    for folder, origin in zip(reversed(folders[1:]), origins, strict=True):
        fill(folder)
        found = find(publication)
        assert (found.folder, found.origin) == (folder, origin)
        assert found.read("b.gz").content == FILES["b.gz"]
        assert found.read("b.gz").sha256 == hashlib.sha256(FILES["b.gz"]).hexdigest()
    fill(folders[0])
    assert find(publication, str(folders[0])).folder == folders[0]


def test_files_may_be_unpacked(places, tmp_path):
    publication, _ = places
    fill(tmp_path / "mine", {"a": b"plain", "b.gz": b"packed"})
    found = find(publication, str(tmp_path / "mine"))
    assert [found.read(name).content for name in FILES] == [b"plain", b"packed"]


def test_what_is_found_nowhere_names_every_place_and_what_to_do(places, tmp_path):
    publication, folders = places
    with pytest.raises(DataError) as error:
        find(replace(publication, url="http://127.0.0.1:9/", advice="buy it"), setting="task.set.path")
    message = str(error.value)
    assert all(str(folder) in message for folder in folders[1:])
    assert "http://127.0.0.1:9/a.gz could not be downloaded (ConnectionError)" in message
    assert message.endswith(
        ": buy it, or put a.gz, b.gz into a folder and name it by task.set.path, or put them into a folder set of a "
        "folder that PYROFORMER_DATA names"
    )
    assert "\n" not in message


def test_without_a_variable_and_without_the_package(nowhere):
    with pytest.raises(
        DataError, match=r"PYROFORMER_DATA \(not set\), .*the package no_such_package \(not installed\)"
    ):
        find(replace(WANTED, package=("no_such_package", "data")))


def test_a_place_that_the_user_named_is_not_passed_over(places, monkeypatch, tmp_path):
    publication, folders = places
    fill(folders[4])
    with pytest.raises(DataError, match=r"mine \(path\) does not exist: expected a folder with a\.gz, b\.gz"):
        find(publication, str(folders[0]))
    fill(folders[1], {"a.gz": b""})
    with pytest.raises(DataError, match=r"data/set \(PYROFORMER_DATA\) has no b\.gz: expected a\.gz, b\.gz"):
        find(publication)
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"PYROFORMER_DATA = .*gone: expected a folder"):
        find(publication)


@pytest.fixture
def server():
    """A publisher on this machine: what it serves can be changed, and whether it hangs up halfway."""

    class Handler(BaseHTTPRequestHandler):
        served, halfway, asked = dict(FILES), False, []

        def do_GET(self):
            content = self.served.get(self.path.strip("/"))
            self.asked.append(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[: len(content or b"") // 2 if self.halfway else None])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        Handler.url = f"http://127.0.0.1:{http.server_port}/"
        yield Handler
        http.shutdown()
        thread.join()


def kept(tmp_path):
    folder = tmp_path / "cache" / "set"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_download_is_kept_and_not_repeated(nowhere, server, tmp_path, capfd):
    publication = replace(WANTED, url=server.url)
    found = find(publication)
    assert found.origin == f"download from {server.url}"
    assert [found.read(name).content for name in FILES] == list(FILES.values())
    assert kept(tmp_path) == ["a.gz", "b.gz"]
    assert find(publication).origin == "cache"
    assert len(server.asked) == 2
    assert capfd.readouterr().out == ""  # a progress bar is for stderr


def test_only_what_is_missing_is_downloaded(nowhere, server, tmp_path):
    fill(tmp_path / "cache" / "set", {"a.gz": FILES["a.gz"]})
    find(replace(WANTED, url=server.url))
    assert server.asked == ["/b.gz"]


def test_nothing_is_downloaded_unless_it_is_wanted(nowhere, server):
    with pytest.raises(DataError, match="set was not found"):
        find(replace(WANTED, url=server.url), download=False)
    assert server.asked == []


def test_another_checksum_is_refused_and_leaves_nothing(nowhere, server, tmp_path):
    server.served = {**FILES, "b.gz": b"betb" * 1000}
    with pytest.raises(DataError, match=r"b\.gz was downloaded but has not the published checksum md5:"):
        find(replace(WANTED, url=server.url))
    assert kept(tmp_path) == ["a.gz"]


def test_a_connection_that_ends_halfway_leaves_nothing(nowhere, server, tmp_path):
    server.halfway = True
    with pytest.raises(DataError, match=r"a\.gz could not be downloaded|has not the published checksum"):
        find(replace(WANTED, url=server.url))
    assert kept(tmp_path) == []


def test_a_file_that_is_not_served(nowhere, server, tmp_path):
    server.served = {}
    with pytest.raises(DataError, match=r"a\.gz could not be downloaded \(HTTPError\)"):
        find(replace(WANTED, url=server.url))
    assert kept(tmp_path) == []


def test_an_interrupt_leaves_nothing(nowhere, server, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources.DownloadBar, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find(replace(WANTED, url=server.url))
    assert kept(tmp_path) == []


def test_a_cache_that_cannot_be_written_to(nowhere, server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache/set cannot be written to"):
        find(replace(WANTED, url=server.url))
