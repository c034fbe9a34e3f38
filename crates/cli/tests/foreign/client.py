"""Lists, reads and writes a server with other people's 9P client (p9fs, and the py9p in it)."""

import sys

from p9fs import P9FileSystem

host, port, dialect = sys.argv[1:]
mark = ["9P2000", "9P2000.u", "9P2000.L"].index(dialect) + 1
fs = P9FileSystem(host, int(port), "nobody", version=dialect)


def names(path):
    return sorted(str(name).rstrip("/").split("/")[-1] for name in fs.ls(path, detail=False))


assert names("") == ["ctl", "sdC0", "stats"], names("")
assert names("sdC0") == ["ctl", "data", "geometry", "part", "raw", "smart", "stats"], names("sdC0")
assert names("sdC0/part") == ["0", "1", "2"], names("sdC0/part")
assert fs.isdir("sdC0/part") and fs.isfile("sdC0/part/2")
assert fs.info("sdC0/part/2")["size"] == 2 << 20
assert not fs.exists("sdC0/part/9")

with fs.open("sdC0/geometry", "rb") as file:
    assert file.read().startswith(b"sectors 16384\nsecsize 512\n")

with fs.open("sdC0/data", "rb") as file:
    file.seek(512)
    assert file.read(8) == b"EFI PART"
    file.seek((8 << 20) - 512)
    assert file.read(8) == b"EFI PART"
    assert len(file.read()) == 504

data = bytes((i * 7 + mark) & 0xFF for i in range(100_000))
handle = fs._open_fid("sdC0/part/2", 2)
assert fs._write(data, 1000, handle) == len(data)
assert fs._read(len(data), 1000, handle) == data
for offset in (2 << 20, (2 << 20) - 1):
    try:
        fs._write(b"xy", offset, handle)
    except Exception:
        pass
    else:
        raise SystemExit("a write past the end went through")
fs._release_fid(handle)

handle = fs._open_fid("sdC0/ctl", 1)
fs._write(b"flush\n", 0, handle)
try:
    fs._write(b"nonsense\n", 0, handle)
except Exception:
    pass
else:
    raise SystemExit("nonsense was accepted")
fs._release_fid(handle)
print(dialect, "is served")
