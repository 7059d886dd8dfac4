"""Downloads an archive of photos once, whole and verified, however often the network fails."""

import csv
import dataclasses
import hashlib
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

from components.common.config import Range, check
from components.common.errors import ConfigError, DataError, FlowersError
from components.common.outputs import remove, staged
from components.common.progress import Progress, progress, say
from components.common.resources import lacking_resource

STEP = "fetch"
MANIFEST = "MANIFEST.csv"
_CHUNK = 1 << 16
_MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Archive:
    """A tar archive on the web.

    Attributes:
        url: Where it is.
        sha256: Its digest, in hexadecimal.
        size: Its length, in bytes.
        credits: Name of the file in it that says who took each photo; empty for none.
    """

    url: str
    sha256: str
    size: int
    credits: str = ""


# 3,670 photos of five classes under Creative Commons licences, see LICENSE.txt in it.
# Size and digest: tensorflow_datasets/url_checksums/tf_flowers.txt of tensorflow/datasets.
FLOWER_PHOTOS = Archive(
    url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    size=228_813_984,
    credits="LICENSE.txt",
)
# PATH CC-BY by AUTHOR - URL, and in a few lines PATH CC-BY URL - by AUTHOR.
_CREDIT = re.compile(
    r"(?P<path>\S+/\S+) CC-BY (?:by (?P<author>.*) - (?P<url>https?://\S+)"
    r"|(?P<url2>https?://\S+) - by (?P<author2>.*))"
)


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: For a connection, and for the next bytes, in seconds.
        tries: In a row that bring nothing, before it gives up.
        first_wait: Before the second try, in seconds; each later wait is twice as long.
    """

    timeout: float = 20.0
    tries: int = 5
    first_wait: float = 1.0

    def __post_init__(self) -> None:
        check("tries", self.tries, Range(1))


def fetch(archive: Archive, output: Path, patience: Patience | None = None) -> None:
    """Downloads an archive, unpacks it and writes who took which photo into `MANIFEST.csv`.

    What has come is kept beside the output when the download fails or is interrupted, and the next
    call goes on from there.

    Args:
        archive: What to download.
        output: Folder to make; the archive's one top folder becomes it.
        patience: How long to try.

    Raises:
        FlowersError: The network does not let it through.
        DataError: What came is not the archive.
        ConfigError: The output exists.
    """
    # Its name, where it is given as a dot.
    output = output.absolute()
    with staged(output) as (folder,):
        partial = output.with_name(f".{output.name}.download")
        _download(archive, partial, patience or Patience())
        _verify(archive, partial)
        _unpack(partial, folder)
        if archive.credits:
            _write_manifest(folder, archive.credits)
    remove(partial)
    say(STEP, f"photos in {output}")


def _download(archive: Archive, partial: Path, patience: Patience) -> None:
    total = -(-archive.size // _MEGABYTE)
    failures = 0
    with progress(STEP, "MB", total) as shown:
        shown.advance(_length(partial) // _MEGABYTE)
        while (before := _length(partial)) < archive.size:
            error = _continue(archive, partial, patience.timeout, shown)
            failures = 0 if _length(partial) > before else failures + 1
            if failures >= patience.tries:
                raise FlowersError(
                    f"{archive.url}: cannot be downloaded ({error}); {_length(partial):,} of "
                    f"{archive.size:,} bytes are kept: check the network and call again"
                ) from error
            if error is not None:
                time.sleep(patience.first_wait * 2 ** max(failures - 1, 0))
        shown.advance(total - archive.size // _MEGABYTE)


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _continue(archive: Archive, partial: Path, timeout: float, shown: Progress) -> Exception | None:
    """Asks for what is still missing and appends what comes; the error that ended it, if any."""
    import requests

    have = _length(partial)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=timeout) as answer:
            _check_answer(answer)
            # A server that does not know ranges sends all of it again.
            if answer.status_code != 206 and have:
                partial.unlink()
                have = 0
            with partial.open("ab") as file:
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    came = have + len(chunk)
                    shown.advance(came // _MEGABYTE - have // _MEGABYTE)
                    have = came
                    if have > archive.size:
                        break
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        return _NetworkError(error)
    except OSError as error:
        if lacking_resource(error):
            raise
        raise ConfigError(f"{archive.url}: cannot be fetched to {partial} ({error})") from error
    return None


def _check_answer(answer: Any) -> None:
    """Refuses what no second try would mend; other faults are raised as the network's."""
    permanent = answer.status_code in (401, 403, 404, 410)
    if permanent:
        raise ConfigError(
            f"{answer.url}: the server says {answer.status_code} {answer.reason}; check the address"
        )
    answer.raise_for_status()


class _NetworkError(Exception):
    """An error of the network in a few words."""

    def __init__(self, error: Exception) -> None:
        text = " ".join(str(error).split())
        known = {
            "NameResolutionError": "no network: the name of the server cannot be resolved",
            "Failed to resolve": "no network: the name of the server cannot be resolved",
            "Connection refused": "the connection is refused",
            "timed out": "the server does not answer in time",
            "Network is unreachable": "no network",
        }
        super().__init__(next((say for word, say in known.items() if word in text), text[:200]))


def _verify(archive: Archive, partial: Path) -> None:
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        remove(partial)
        raise DataError(
            f"{archive.url}: expected SHA-256 {archive.sha256}, received {digest}; it has been "
            "removed: call again, and if that does not help, the archive has changed"
        )


def _unpack(partial: Path, folder: Path) -> None:
    """Unpacks the files in the one top folder of an archive as `folder`.

    Python's own way to refuse members that leave a folder came with 3.11.4, which is newer than
    what Debian 12 has.
    """
    try:
        with tarfile.open(partial) as archive:
            for member in archive:
                _, _, inner = member.name.removeprefix("./").partition("/")
                target = folder / inner
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise tarfile.TarError(f"{member.name} would lie outside of the folder")
                content = archive.extractfile(member) if inner and member.isfile() else None
                if content is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content, target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{partial}: cannot be unpacked ({error})") from error


def _write_manifest(folder: Path, name: str) -> None:
    """Writes path, author and source of every photo, so that an author's photos stay together.

    Raises:
        DataError: The credits cannot be read.
    """
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} of the archive: cannot be read ({error})") from error
    found = {match["path"]: match for line in lines if (match := _CREDIT.fullmatch(line))}
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("path", "author", "source_url"))
        for path in sorted(folder.glob("*/*")):
            photo = path.relative_to(folder).as_posix()
            match = found.get(photo)
            # A photo whose author nobody has named is a group of its own.
            author, url = (
                (match["author"] or match["author2"], match["url"] or match["url2"])
                if match
                else ("", "")
            )
            rows.writerow((photo, author, url))
