"""The manifest: which group each photo belongs to."""

import csv
import io

from components.common import storage
from components.common.errors import DataError


def read_groups(manifest: str, column: str) -> dict[str, str]:
    """Reads which group each photo belongs to.

    Args:
        manifest: CSV with a header, local or `gs://bucket/name`; its column `path` holds the names
            of the photos.
        column: The column whose equal values make a group, e.g. the photographer.

    Returns:
        Group by name of the photo; empty where the manifest leaves the column empty.

    Raises:
        DataError: The file is absent or is not such a CSV, or puts a photo into two groups.
    """
    try:
        text = storage.read(str(manifest)).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        columns = list(rows.fieldnames or [])
        missing = [name for name in ("path", column) if name not in columns]
        if missing:
            raise DataError(
                f"--manifest {manifest}: expected a column {missing[0]!r}, found "
                f"{', '.join(columns) or 'none'}"
            )
        return _groups(manifest, rows, column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--manifest {manifest}: cannot be read as CSV ({error})") from error


def _groups(manifest: str, rows: "csv.DictReader[str]", column: str) -> dict[str, str]:
    groups: dict[str, str] = {}
    for row in rows:
        group = (row[column] or "").strip()
        if groups.setdefault(row["path"], group) != group:
            raise DataError(
                f"--manifest {manifest}: {row['path']!r} is in the groups "
                f"{groups[row['path']]!r} and {group!r}: expected one; mend the manifest"
            )
    return groups
