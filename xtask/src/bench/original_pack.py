"""Packs a directory as the original's server does it: tarfile, then a hash of the file."""
import hashlib
import sys
import tarfile

with tarfile.open("original.tbz", "w:bz2") as archive:
    archive.add(sys.argv[1])
digest = hashlib.sha256()
with open("original.tbz", "rb") as archive:
    while piece := archive.read(1 << 20):
        digest.update(piece)
print(digest.hexdigest())
