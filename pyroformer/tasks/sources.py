"""Where files of data are found: a path, a folder of the user's, an installed package, a cache, a download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..inference import DataError
from .idx import ReadFile, read_bytes

VARIABLE = "PYROFORMER_DATA"
"""The environment variable that names a folder of data, with one sub-folder a publication."""


def cache() -> Path:
    """The package's own folder for downloads."""
    import pooch  # not above: it takes a moment to import

    return Path(pooch.os_cache("pyroformer"))


@dataclass(frozen=True)
class Publication:
    """Files of data as their publisher names them, and where they may be.

    Args:
        name: The sub-folder of `VARIABLE`'s folder and of the cache.
        files: Names of the files, with pooch's checksums (``md5:...``) of the published ones or None.
        folders: System folders that may hold them.
        package: An installed package that may hold them, and the folder below it; it is not imported.
        url: Where to download from, ending in a slash, or None.
        advice: Another way to get the files, for messages.
    """

    name: str
    files: Mapping[str, str | None]
    folders: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    url: str | None = None
    advice: str = ""


@dataclass(frozen=True)
class Found:
    """Files of a publication in one place.

    Args:
        folder: Where they are.
        origin: What kind of place that is, in words.
        files: The path of every file, by its published name.
    """

    folder: Path
    origin: str
    files: dict[str, Path] = field(default_factory=dict)

    def read(self, name: str) -> ReadFile:
        """The bytes of one file."""
        return read_bytes(self.files[name], f"the file {name}")


def find(publication: Publication, path: str | None = None, *, setting: str = "path", download: bool = True) -> Found:
    """The first place that holds a publication's files, gzip or unpacked.

    In this order: ``path``, the folder of `VARIABLE`, system folders and packages, the cache, the download.

    Args:
        publication: What is wanted.
        path: The only folder to look at, or None.
        setting: What ``path`` is called, for messages.
        download: Whether to download what is found nowhere, default True.

    Raises:
        DataError: A folder that the user named does not hold the files, or they are found nowhere; the message names
            every place.
    """
    if path is not None:
        return _at(publication, Path(path), setting)
    looked, given = [], os.environ.get(VARIABLE)
    if not given:
        looked.append(f"{VARIABLE} (not set)")
    elif not Path(given).is_dir():
        raise DataError(f"{VARIABLE} = {given}: expected a folder")
    else:
        own = Path(given) / publication.name
        if own.exists():
            return _at(publication, own, VARIABLE)
        looked.append(f"{own} ({VARIABLE})")
    for folder, origin in _installed(publication):
        if _present(publication, folder):
            return _at(publication, folder, origin)
        looked.append(str(folder))
    if publication.package is not None and find_spec(publication.package[0]) is None:
        looked.append(f"the package {publication.package[0]} (not installed)")
    kept = cache() / publication.name
    if len(_present(publication, kept)) == len(publication.files):
        return _at(publication, kept, "cache")
    looked.append(str(kept))
    failure = ""
    if download and publication.url is not None:
        try:
            return _download(publication, kept)
        except DataError as error:
            failure = f", and {error}"
    advice = f"{publication.advice}, or " if publication.advice else ""
    raise DataError(
        f"{publication.name} was not found; looked at {', '.join(looked)}{failure}: {advice}put "
        f"{', '.join(publication.files)} into a folder and name it by {setting}, or put them into a folder "
        f"{publication.name} of a folder that {VARIABLE} names"
    )


def _installed(publication: Publication) -> list[tuple[Path, str]]:
    places = [(Path(folder), "system folder") for folder in publication.folders]
    if publication.package is not None:
        name, below = publication.package
        spec = find_spec(name)
        places += [(Path(p) / below, f"package {name}") for p in (spec and spec.submodule_search_locations) or ()]
    return places


def _present(publication: Publication, folder: Path) -> dict[str, Path]:
    """The files that are there, each as published or unpacked."""
    both = {name: (folder / name, folder / name.removesuffix(".gz")) for name in publication.files}
    return {
        name: next(p for p in paths if p.exists()) for name, paths in both.items() if any(p.exists() for p in paths)
    }


def _at(publication: Publication, folder: Path, origin: str) -> Found:
    wanted = ", ".join(publication.files)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} ({origin}) {what}: expected a folder with {wanted}")
    files = _present(publication, folder)
    missing = [name for name in publication.files if name not in files]
    if missing:
        raise DataError(f"{folder} ({origin}) has no {missing[0]}: expected {wanted}")
    return Found(folder, origin, files)


class DownloadBar:
    """The progress of one download, on stderr, as pooch wants it: a total and three methods."""

    def __init__(self, name: str):
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task(name, total=None)
        self.total = 0

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.progress.disable:  # before rich 14.3, one that is disabled prints an empty line
            self.progress.stop()

    def update(self, size: int) -> None:
        """So many more bytes have come; the bar shows from the first on, and not for a connection that fails."""
        self.progress.start()
        self.progress.update(self.task, total=self.total or None, advance=size)

    def reset(self) -> None:
        """Start from 0 again."""
        self.progress.reset(self.task)

    def close(self) -> None:
        """The download is over; the bar goes when its block ends."""


def _download(publication: Publication, folder: Path) -> Found:
    """Fetch what the cache lacks; a file takes its name there only when it is whole and its checksum is right."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    files = _present(publication, folder)
    for name, checksum in publication.files.items():
        if name in files:
            continue
        address = f"{publication.url}{name}"
        try:
            with DownloadBar(name) as bar:
                downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=30)
                pooch.retrieve(address, known_hash=checksum, fname=name, path=folder, downloader=downloader)
        except requests.RequestException as error:
            raise DataError(f"{address} could not be downloaded ({type(error).__name__})") from None
        except ValueError:
            raise DataError(f"{address} was downloaded but has not the published checksum {checksum}") from None
        except OSError as error:
            raise DataError(f"{folder} cannot be written to ({error.strerror})") from None
    return Found(folder, f"download from {publication.url}", _present(publication, folder))
