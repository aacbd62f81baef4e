"""Sources of text: documents from files, folders, records, the Hugging Face hub, or the installed Python."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sanbu.data.reading import SourceError, decode_text, encodable, kind_of_file, read_unzipped, readable
from sanbu.data.record_files import has_records, rows_of, text_in, tidy, without_notes
from sanbu.files import fingerprint as hash_files
from sanbu.files import nearest_file

ONCE_TEXT = (".json", ".jsonlines", ".jl", ".csv", ".tsv")  # read as plain text by earlier versions: other caches
BUILT_IN = "builtin:"  # the name of what ships with Sanbu, whatever files there are


def documents(path: str, field: str = "text", left_out: Counter[str] | None = None) -> Iterator[str]:
    """Every document of a source, in order, with characters that UTF-8 cannot encode replaced. Raises SourceError.

    left_out: counts what has no text, and files that are about the data, by reason.
    """
    skipped = Counter() if left_out is None else left_out
    for text in texts(path, field, skipped):
        if text:
            yield encodable(text)
        else:
            skipped["records without text" if text is None else "empty texts"] += 1


def texts(path: str, field: str, skipped: Counter[str]) -> Iterator[str | None]:
    """The text of every document or record; None where a record has null."""
    if built_in(path, "python"):
        from sanbu.data.builtin.stdlib_docs import documentation

        yield from documentation()
    elif path.startswith("hub:"):
        yield from (text_in(row, field, where) for where, row in read_hub(path.removeprefix("hub:")))
    else:
        found, notes = without_notes(files(path))
        skipped.update(notes)
        for file in found:
            yield from read_documents(file, field)


def read_documents(file: Path, field: str) -> Iterator[str | None]:
    """The texts of a file: of each of its records, or the whole file as one."""
    if has_records(file):
        yield from (text_in(row, field, where) for where, row in rows_of(file, (field,)))
    else:
        yield decode_text(file, read_unzipped(file))


def built_in(path: str, name: str) -> bool:
    """Whether a path names what ships with Sanbu: builtin:NAME, or NAME where no file or folder is called so.

    Raises SourceError for another name after builtin:.
    """
    if not path.startswith(BUILT_IN):
        return path == name and not Path(path).exists()
    if path != BUILT_IN + name:
        raise SourceError(f"data.path: given {path!r}, allowed: {BUILT_IN}{name}, or a file or folder")
    return True


def full_name(path: str, name: str) -> str:
    """The path, with builtin: where it names what ships with Sanbu, so that no new file changes its meaning."""
    return BUILT_IN + name if built_in(path, name) else path


def fingerprint(path: str) -> str:
    """A hash of the content of a source; for the hub, of its name."""
    if built_in(path, "python"):
        from sanbu.data.builtin.stdlib_docs import version

        return hash_files((), version())
    if path.startswith("hub:"):
        return hash_files((), path)
    found, _ = without_notes(files(path))
    once_text = any(kind_of_file(file)[0] in ONCE_TEXT for file in found)
    return hash_files(found, "records" if once_text else "")


def files(path: str) -> list[Path]:
    """The files of a path, sorted by name. Raises SourceError when there is none."""
    place = Path(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise SourceError(f"data.path: there is no file or folder {path!r}{nearest_file(path)}")
    found, _ = walk(place)
    if not found:
        raise SourceError(f"data.path: the folder {path!r} has no file; hidden files are ignored")
    return found


def walk(place: Path) -> tuple[list[Path], Counter[str]]:
    """The files of a folder and of the folders in it, sorted by name, and a count of what was left out.

    A link to a folder elsewhere is followed, once for each folder it leads to; one to a folder within this one, or
    around it, is left out, and so are hidden files and broken links. Raises SourceError for a folder that cannot be
    read.
    """
    root = os.path.realpath(place)
    seen: set[str] = set()
    skipped: Counter[str] = Counter()
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise SourceError(f"data.path: {error.filename} cannot be read: {error.strerror}") from None

    for folder, folders, names in os.walk(place, onerror=fail, followlinks=True):
        folders.sort()
        for name in list(folders):
            problem = left_out(Path(folder, name), root, seen)
            if problem:
                folders.remove(name)
                skipped[problem] += 1
        for name in names:
            file = Path(folder, name)
            if hidden((name,)):
                skipped["hidden"] += 1
            elif file.is_file():
                found.append(file)
            else:
                skipped["broken links or no files"] += 1
    return sorted(found), skipped


def left_out(folder: Path, root: str, seen: set[str]) -> str:
    """Why a folder below `root` is not entered; nothing if it is. seen: real places of the links followed so far."""
    if hidden((folder.name,)):
        return "hidden folders"
    if not folder.is_symlink():
        return ""
    real = os.path.realpath(folder)
    if within(real, root) or within(root, real) or within(os.path.realpath(folder.parent), real) or real in seen:
        return "links to folders read already"
    seen.add(real)
    return ""


def within(inner: str, outer: str) -> bool:
    """Whether a real path is that of a folder, or of something in it."""
    return f"{inner}{os.sep}".startswith(f"{outer.rstrip(os.sep)}{os.sep}")


def hidden(parts: Sequence[str]) -> bool:
    """Whether a file is hidden, or what macOS adds to archives, by the parts of its name."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def stamp(found: Sequence[Path]) -> str:
    """The state of files: their names, sizes and times of change; other after any change."""
    digest = hashlib.sha256()
    for file in found:
        try:
            about = file.stat()
        except OSError:
            continue  # it is gone again: another state
        digest.update(f"{file}\0{about.st_size}\0{about.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_hub(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of the training split of a Hugging Face data set, streamed. name: NAME or NAME:CONFIG."""
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.path=hub:{name} needs the package datasets: pip install 'sanbu[hub]'") from None
    dataset, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset, config or None, split="train", streaming=True)
    except Exception as error:  # the library raises many types of errors when it cannot load a data set
        raise SourceError(f"data.path: cannot load the data set {name!r}: {str(error).splitlines()[0]}") from None
    with readable(f"hub:{name}"):
        for number, row in enumerate(rows, 1):
            yield f"hub:{name}, row {number}", tidy(row)
