"""Skills to upload, good and hostile."""

import io
import stat
import zipfile

MANIFEST = "---\nname: demo-skill\ndescription: Shows how.\n---\n# Demo\n"


def zipped(*entries: tuple[str, bytes | str] | tuple[str, bytes | str, int]) -> bytes:
    """Return a zip archive; an entry's third part is its Unix mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def with_manifest(*entries) -> bytes:
    """Return a zip archive of a good skill with more entries."""
    return zipped(("demo-skill/SKILL.md", MANIFEST), *entries)
