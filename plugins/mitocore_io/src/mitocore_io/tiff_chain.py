"""The chain of pages of a TIFF file, followed to see whether the file was cut short.

A TIFF file lists its pages in image file directories, each of which points to the next, wherever it lies; a file that
lost its end may still open, with fewer pages or without its voxel size. TIFF 6.0, section 2; BigTIFF alike.
"""

import struct
from typing import Any

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def is_broken(tif: Any) -> bool:
    """Whether a page, or a value that a page states, lies beyond the end of an open `tifffile.TiffFile`."""
    form, file, visited = tif.tiff, tif.filehandle, set()
    inline = form.offsetsize  # a value of at most so many bytes stands in its entry, in the place of its offset
    entry = struct.Struct(tif.byteorder + ("HHQQ" if inline == 8 else "HHII"))
    offset = tif.pages.first.offset
    while offset:
        file.seek(offset)
        count = file.read(form.tagnosize)
        if offset in visited or len(count) < form.tagnosize:
            return True
        visited.add(offset)
        size = struct.unpack(form.tagnoformat, count)[0] * entry.size
        entries, following = file.read(size), file.read(form.offsetsize)
        if len(entries) < size or len(following) < form.offsetsize:
            return True
        for _, kind, number, place in entry.iter_unpack(entries):
            length = _BYTES.get(kind, 0) * number
            if length > inline and place + length > file.size:
                return True
        (offset,) = struct.unpack(form.offsetformat, following)
    return False
