#!/usr/bin/env python3
"""Makes the corpus of hostile manifests: a directory for each defect.

    make.py            writes it
    make.py --check    fails where what is written is not what this makes

A directory has `manifest.sig.tbz`, or `manifest.thin.sig.tar.zst`, and `expect.txt`: what the refusal says, what the defect is
about, and `original` where the manifest is read as one of the original server.

Every inner archive is signed with `key.pem` unless the defect is about that: whoever signs is the
attacker, too. `good.sig.tbz` and `good.thin.sig.tar.zst` have no defect.
"""

import bz2
import gzip
import hashlib
import shutil
import sys

sys.dont_write_bytecode = True

from craft import (
    END, HERE, KEY, OTHER_KEY, TIME, Build, Thin, Tree, entry, long_name, object_id, pax, sign,
    small_tree, zstd, zstd_bomb,
)

DEFECTS = {}


def defect(name, expected, about, archive, *mode):
    assert name not in DEFECTS, name
    assert expected and "\n" not in expected + about
    DEFECTS[name] = (archive, "\n".join([expected, about, *mode]) + "\n")


def outer():
    good = Build()
    inner = good.inner()
    archive, signature = good.members(inner, sign(inner))

    def of(*members, behind=b""):
        return bz2.compress(b"".join(members) + END + behind, 1)

    def named(name, **fields):
        return of(entry(name, inner, **fields), signature)

    whole = of(archive, signature)
    belongs = "that does not belong there"
    for name, expected, about, made in [
        ("signature-first", "signature stands before what it signs",
         "the signature, then the archive", of(signature, archive)),
        ("names-differ", "signature is that of a manifest of another name",
         "an archive beside another manifest's signature",
         of(entry("manifest.r.example.app.x.tbz", inner), signature)),
        ("third-member", f"manifest has a member `notes` {belongs}",
         "a third member", of(archive, signature, entry("notes", b"hello"))),
        ("two-archives", f".tbz` {belongs}", "two archives, one signature",
         of(archive, entry(good.name + ".tbz", b"other"), signature)),
        ("two-signatures", f".sig` {belongs}", "two signatures: which one counts?",
         of(archive, signature, entry(good.name + ".sig", b"00"))),
        ("no-signature", "manifest has no member that ends in `.sig`", "nothing signed",
         of(archive)),
        ("no-archive", "signature stands before what it signs", "a signature of nothing",
         of(signature)),
        ("empty", "manifest has no member that ends in `.tbz`", "no members at all", of()),
        ("trailing-bytes", "archive cannot be read or decompressed",
         "bytes behind the compressed archive", whole + b"more"),
        ("data-after-end", "archive has data after its end",
         "bytes behind the blocks that end the archive", of(archive, signature, behind=b"more")),
        ("second-stream", "archive has data after its end",
         "a whole archive behind the end of the first", whole + whole),
        ("gzip", "archive cannot be read or decompressed", "gzip instead of bzip2",
         gzip.compress(bz2.decompress(whole), 0, mtime=0)),
        ("uncompressed", "archive cannot be read or decompressed", "a plain tar archive",
         bz2.decompress(whole)[:2048]),
        ("truncated", "archive ends too early", "the end of the download is missing",
         whole[:-200]),
        ("end-missing", "archive ends too early", "no blocks of zeros at the end",
         bz2.compress(archive + signature, 1)),
        ("symlink-member", "is a symbolic link", "the archive is a link to another file",
         of(entry(good.name + ".tbz", flag=b"2", link=b"/etc/passwd"), signature)),
        ("directory-member", belongs, "the archive is a directory",
         of(entry(good.name + ".tbz/"), signature)),
        ("member-outside", "has a `..` part", "a member above where it is unpacked",
         named("../manifest.a.tbz")),
        ("member-absolute", "name is absolute", "a member at an absolute path",
         named("/manifest.a.tbz")),
        ("member-in-directory", belongs, "a member in a directory", named("d/manifest.a.tbz")),
        ("member-of-other-name", "member's name is not that of a manifest",
         "a member that would replace another file of whoever unpacks it",
         named("authorized_keys.tbz")),
        ("member-of-hidden-name", "member's name is not that of a manifest",
         "a member whose build name begins with a dot", named("manifest..ssh.tbz")),
        ("member-with-escape", "name has a control character",
         "a member whose name clears the terminal", named("manifest.a\x1b[2J.tbz")),
        ("member-with-nul", "name has a control character",
         "a member whose name ends elsewhere for another reader",
         named(b"manifest.a\0.tbz")),
        ("bomb", "archive unpacks to more than 100 times its size",
         "megabytes of zeros in some bytes",
         bz2.compress(entry("manifest.a.tbz", size=b"%011o\0" % (8 << 20)) + bytes(8 << 20) + END)),
        ("inner-too-large", "is larger than 8388608 bytes",
         "an archive that the header alone makes too large",
         of(entry(good.name + ".tbz", size=b"%011o\0" % (1 << 24)))),
    ]:
        defect("outer-" + name, expected, about, made)


def signatures():
    build = Build()
    inner = build.inner()
    digest = hashlib.sha256(inner).digest()
    right = sign(inner)
    rejected = "manifest was not signed, as it is, with the key that belongs to this public key"
    digits = "signature has something else than lower-case hex digits"
    count = "signature is empty or has an odd number of digits"
    for name, expected, about, text in [
        ("upper-case", digits, "the right signature in upper-case digits", right.upper()),
        ("prefix", digits, "the right signature behind 0x", b"0x" + right),
        ("blank", digits, "the right signature behind a blank", b" " + right),
        ("line-end", "signature ends in a line end", "the right signature and a line end",
         right + b"\n"),
        ("odd", count, "a digit is missing", right[:-1]),
        ("empty", count, "no signature", b""),
        ("too-long", "signature has more than 8192 digits", "far more than any key makes",
         b"ab" * 4097),
        ("zeros-in-front", rejected, "the right number with leading zeros", b"00" + right),
        ("twice", rejected, "the right signature twice", right * 2),
        ("zeros", rejected, "the number zero", b"0" * 768),
        ("one", rejected, "the number one, which is its own power", b"0" * 767 + b"1"),
        ("of-another-file", rejected, "a good signature of another file", sign(b"another file")),
        ("by-another-key", rejected, "a good signature by a stranger", sign(inner, OTHER_KEY)),
        ("sha512", rejected, "PKCS #1 v1.5 over SHA-512",
         KEY.sign(digest, "sha512").hex().encode()),
        ("hashed-once", rejected, "the archive's digest signed without hashing it once more",
         KEY.sign(inner).hex().encode()),
        ("of-the-digits", rejected, "the digest signed as hex digits",
         KEY.sign(digest.hex().encode()).hex().encode()),
        ("pss", rejected, "RSASSA-PSS instead of PKCS #1 v1.5",
         KEY.sign_pss(digest).hex().encode()),
        ("no-null", rejected, "an algorithm identifier without its NULL",
         KEY.sign(digest, null=b"").hex().encode()),
        ("bytes-behind", rejected, "bytes behind the digest, for less padding",
         KEY.sign(digest, behind=bytes(200)).hex().encode()),
        ("no-padding", rejected, "the digest alone, not padded",
         KEY.raw(hashlib.sha256(digest).digest()).hex().encode()),
    ]:
        defect("signature-" + name, expected, about, build.outer(inner, text))


def inner(name, expected, about, tar):
    defect("inner-" + name, expected, about, Build().sealed(tar))


def names():
    for name, path, expected, about in [
        ("absolute", "/etc/cron.d/x", "name is absolute", "a file at an absolute path"),
        ("parent", "git/../../outside", "has a `..` part", "a file above"),
        ("parent-alone", "..", "has a `..` part", "the directory above"),
        ("parent-backslash", "git/z\\..\\..\\outside", "has a `..` part",
         "a file above, where backslashes separate"),
        ("git-directory", "git/z/.git/hooks/post-checkout", "has a `.git` part",
         "a hook of git"),
        ("git-directory-case", "git/z/.GIT/config", "has a `.git` part",
         "git's configuration, where case does not matter"),
        ("git-directory-backslash", "git/z\\.git\\config", "has a `.git` part",
         "git's configuration, where backslashes separate"),
        ("git-directory-short", "git/GIT~1/config", "has a `.git` part",
         "the short name that NTFS gives .git"),
        ("git-directory-dot", "git/.git. ./config", "has a `.git` part",
         "NTFS drops dots and blanks at the end"),
        ("git-directory-stream", "git/.git::$INDEX_ALLOCATION/config", "has a `.git` part",
         "a stream of NTFS that is the directory itself"),
        ("git-directory-stream-backslash", "git/z\\git~1:x\\config", "has a `.git` part",
         "a stream of NTFS where backslashes separate"),
        ("git-directory-ignorable", "git/.g\u200cit\ufeff/config", "has a `.git` part",
         "HFS+ drops characters that nobody sees"),
        ("nul", b"git/z\0.txt", "name has a control character",
         "a name that ends elsewhere for another reader"),
        ("line-end", "git/z\nz", "name has a control character", "a name of two lines"),
        ("escape", "git/z\x1b]0;owned\x07", "name has a control character",
         "a name that talks to the terminal"),
        ("delete", "git/z\x7f", "name has a control character", "a name that hides its end"),
        ("dot", "git/./z", "name has an empty part or a `.` part", "one file of two names"),
        ("empty-part", "git//z", "name has an empty part or a `.` part",
         "one file of two names"),
        ("slash-at-end", "git/z/", "name has an empty part or a `.` part",
         "a file that is a directory to others"),
        ("no-name", "", "name has an empty part or a `.` part", "no name"),
    ]:
        inner("name-" + name, expected, about, Build().tar(entry(path, b"x", flag=b"0")))
    file = entry("git/z", b"x")
    for name, long, expected, about in [
        ("parent", b"git/../../outside", "has a `..` part", "a file above"),
        ("nul", b"git/z\0z", "name has a control character",
         "a name that ends elsewhere for another reader"),
        ("too-long", b"git/" + b"x" * 4093, "name is longer than 4096 bytes",
         "a name of more than PATH_MAX"),
        ("bomb", b"x" * 20_000, "more than 16384 bytes", "a name that is a file's size"),
        ("needless", b"git/z", "is not the one this server writes",
         "two headers where one would do"),
    ]:
        inner("long-name-" + name, expected, about, Build().tar(long_name(long), file))
    inner("long-name-twice", "name or size given twice", "two names for one entry",
          Build().tar(long_name(b"git/y"), long_name(b"git/z"), file))
    inner("long-name-of-nothing", "archive ends too early", "a name for no entry",
          Build().tar(long_name(b"git/z")))
    inner("long-link", "is a thing of no known kind", "a long target for a link",
          Build().tar(long_name(b"/etc/passwd", flag=b"K"), file))


def kinds():
    for name, flag, what, fields in [
        ("symlink", b"2", "symbolic link", {"link": b"/etc"}),
        ("hard-link", b"1", "hard link", {"link": b"/etc/passwd"}),
        ("character-device", b"3", "character device", {"major": b"0000001\0"}),
        ("block-device", b"4", "block device", {"major": b"0000010\0"}),
        ("fifo", b"6", "FIFO", {}),
        ("contiguous", b"7", "thing of no known kind", {}),
        ("sparse", b"S", "sparse file", {"magic": b"ustar  \0"}),
        ("old-file", b"\0", "thing of no known kind", {}),
        ("volume", b"V", "thing of no known kind", {}),
        ("global-header", b"g", "global extended header", {}),
    ]:
        # What follows would be written through the first.
        hostile = [entry("git/z", flag=flag, **fields), entry("git/z/passwd", b"x")]
        inner("kind-" + name, f"entry `git/z` is a {what}", f"a {what}, and a file beneath it",
              Build().tar(*hostile))


def headers():
    canonical = "header of entry `git/z` is not the one this server writes"
    extended = "entry is extended by what is not allowed: extended header"
    damaged = "header of an entry is damaged"
    number = "header of an entry has a size that is not written in octal digits"
    file = entry("git/z", b"12345678")

    def tweaked(**fields):
        return Build().tar(entry("git/z", b"12345678", **fields))

    for name, expected, about, tar in [
        ("pax-path", extended, "a name that only some readers see",
         Build().tar(pax(b"path=git/../../outside"), file)),
        ("pax-size", extended, "a size that only some readers see",
         Build().tar(pax(b"size=1"), file)),
        ("pax-sparse", extended, "a sparse file that only some readers see",
         Build().tar(pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0"), file)),
        ("owner", canonical, "a file of another user", tweaked(uid=b"0001750\0")),
        ("owner-name", canonical, "a file of a named user", tweaked(uname=b"root")),
        ("set-user-id", canonical, "a set-user-ID file", tweaked(mode=b"0004755\0")),
        ("world-writable", canonical, "a file that everybody may write",
         tweaked(mode=b"0000666\0")),
        ("link-name", canonical, "a file with the target of a link",
         tweaked(link=b"/etc/passwd")),
        ("device-number", canonical, "a file with the number of a device",
         tweaked(major=b"0000010\0")),
        ("gnu-magic", canonical, "a header of another format", tweaked(magic=b"ustar  \0")),
        ("blanks", canonical, "a number written in another way",
         tweaked(size=b"        010\0")),
        ("mtime", "entry `git/z` has another time than the others", "a file of another time",
         tweaked(mtime=b"%011o\0" % 1)),
        ("size-base-256", number, "a size in GNU's binary form",
         tweaked(size=b"\x80" + (8).to_bytes(11, "big"))),
        ("size-negative", number, "a size below zero",
         tweaked(size=b"\xff" * 12)),
        ("size-negative-wrapped", number, "a size below zero that ends like one above",
         tweaked(size=b"\xff" * 4 + (8).to_bytes(8, "big"))),
        ("size-base-256-too-large", "is larger than 8388608 bytes",
         "a file of eight gigabytes, in GNU's binary form",
         tweaked(size=b"\x80" + (1 << 33).to_bytes(11, "big"))),
        ("size-overflow", number, "a size of more than 64 bits that ends like a small one",
         tweaked(size=b"\x80\0\0\x01" + (8).to_bytes(8, "big"))),
        ("size-no-number", number, "a size that is none", tweaked(size=b"0000000008x\0")),
        ("size-behind-nul", number, "a size with other digits behind its end",
         tweaked(size=b"10\x000000777\0")),
        ("size-sign", number, "a size with a sign", tweaked(size=b"+0000000010\0")),
        ("size-too-large", "is larger than 8388608 bytes", "a file of eight gigabytes",
         tweaked(size=b"7" * 11 + b"\0")),
        ("size-beyond-end", "archive ends too early", "a file that swallows the end",
         tweaked(size=b"%011o\0" % 100_000)),
        ("checksum", damaged, "a wrong checksum", tweaked(checksum=b"0000000\0")),
        ("checksum-signed", canonical, "the right checksum in another form",
         tweaked(checksum=b"0%05o\0 " % sum(_zeroed(file)))),
        ("directory-with-content", damaged, "a directory that has content",
         Build().tar(entry("git/z/", b"1"))),
        ("prefix-of-no-ustar", "prefix without the magic of ustar",
         "a name whose first part only some readers see",
         tweaked(magic=b"ustar  \0", prefix=b"../../outside")),
        ("padding", "archive has data between two entries", "data behind a file's end",
         Build().tar(file[:-1] + b"1")),
    ]:
        inner("header-" + name, expected, about, tar)


def _zeroed(file):
    """A header as its checksum sees it."""
    return file[:148] + b" " * 8 + file[156:512]


def layout():
    build = Build()
    fixed, source = build.fixed(), build.source

    def without(name):
        return b"".join(part for key, part in (fixed | source).items() if key != name) + END

    def more(*parts):
        return build.tar(*parts)

    swapped = dict(source)
    swapped["git/Dockerfile"], swapped["git/lib.rs"] = source["git/lib.rs"], source["git/Dockerfile"]
    place = "is not in a directory of the manifest"
    for name, expected, about, tar in [
        ("duplicate", "entry `git/run.sh` appears twice", "which of the two is it?",
         more(entry("git/run.sh", b"rm -r ~\n", executable=True))),
        ("duplicate-elsewhere", "entry `git/lib.rs` is out of order",
         "a second file of a name, far from the first", more(entry("git/lib.rs", b"2"))),
        ("duplicate-record", "entry `data/build.json` appears twice", "a second record",
         more(fixed["data/build.json"])),
        ("duplicate-record-in-place", "entry `data/build.json` appears twice",
         "a second record behind the first",
         b"".join([fixed["data/"], fixed["data/build.json"]] + build.entries()[1:]) + END),
        ("file-and-directory", "entry `git/z` appears twice",
         "a file and a directory of one name",
         more(entry("git/z"), entry("git/z.a"), entry("git/z/"))),
        ("below-a-file", f"entry `git/run.sh/z` {place}", "a file beneath a file",
         more(entry("git/run.sh/z"))),
        ("no-directory", f"entry `git/z/z` {place}", "a file in a directory that is not there",
         more(entry("git/z/z"))),
        ("unsorted", "entry `git/Dockerfile` is out of order", "entries in another order",
         b"".join([*fixed.values(), *swapped.values()]) + END),
        ("unknown-top", "has an entry `root_ssh` that does not belong there",
         "the server's ssh keys", more(entry("root_ssh/"))),
        ("unknown-data", "has an entry `data/x` that does not belong there",
         "data that nobody knows", more(entry("data/x"))),
        ("no-data", "manifest has no `data/` in its place", "no data directory",
         without("data/")),
        ("no-record", "manifest has no `data/build.json` in its place", "no record",
         without("data/build.json")),
        ("no-log", "manifest has no `data/build.log` in its place", "no log",
         without("data/build.log")),
        ("no-commit", "manifest has no `data/commit` in its place", "no commit object",
         without("data/commit")),
        ("no-listing", "manifest has no `data/tree` in its place", "no tree listing",
         without("data/tree")),
        ("no-source", "manifest has no `git/` in its place", "no source directory",
         without("git/")),
        ("empty", "manifest has no `data/` in its place", "an archive without entries", END),
        ("executable-record", "manifest has no `data/build.json` in its place",
         "a record that may be executed",
         b"".join([fixed["data/"], entry("data/build.json", build.json(), executable=True)]
                  + build.entries()[2:]) + END),
    ]:
        inner("layout-" + name, expected, about, tar)


def ends():
    build = Build()
    tar = build.tar()
    for name, expected, about, made in [
        ("missing", "archive ends too early", "no blocks of zeros at the end", tar[:-1024]),
        ("half", "archive ends too early", "one block of zeros", tar[:-512]),
        ("odd", "archive ends too early", "an end of no whole blocks", tar[:-24]),
        ("data-behind", "archive has data after its end", "bytes behind the end", tar + b"x"),
        ("entry-behind", "archive has data after its end",
         "an entry that readers see who go on behind one block of zeros",
         tar[:-512] + entry("git/z", b"x") + END),
        ("zeros-behind", "archive has data after its end", "megabytes of zeros at the end",
         tar + bytes(5 << 18)),
    ]:
        inner("end-" + name, expected, about, made)
    packed = build.inner()
    for name, expected, about, made in [
        ("truncated", "archive ends too early", "half an inner archive", packed[:-100]),
        ("bytes-behind", "archive cannot be read or decompressed",
         "bytes behind the inner archive", packed + b"more"),
        ("gzip", "archive cannot be read or decompressed", "gzip instead of bzip2",
         gzip.compress(tar, 0, mtime=0)),
        ("no-bytes", "archive ends too early", "an inner archive of no bytes", b""),
    ]:
        defect("inner-stream-" + name, expected, about, build.wrapped(made))


def costs():
    many = [entry(f"git/z{number:03}") for number in range(64)]
    inner("cost-entries", "archive has more than 64 entries", "files without end",
          Build().tar(*many))
    inner("cost-bomb", "archive unpacks to more than 100 times its size",
          "zeros that pack a thousandfold", Build().tar(entry("git/z", bytes(4 << 20))))
    noted = Build()
    noted.record["started_at"] = "x" * 20_000
    defect("inner-cost-record", "entry `data/build.json` is larger than 16384 bytes",
           "a record of megabytes", noted.sealed(noted.tar()))
    listed = Build()
    listed.listing = listed.listing * 100
    defect("inner-cost-listing", "entry `data/tree` is larger than 16384 bytes",
           "a listing of gigabytes", listed.sealed(listed.tar()))
    told = Build()
    told.commit += b"x" * 20_000
    defect("inner-cost-commit", "entry `data/commit` is larger than 16384 bytes",
           "a commit message of gigabytes", told.sealed(told.tar()))


def records():
    parse = "record: `data/build.json` does not parse"

    def of(name, expected, about, change):
        build = Build()
        json = change(build, build.json())
        defect("record-" + name, expected, about, build.sealed(build.tar(json=json)))

    def doubled(key, line):
        return lambda build, json: json.replace(key, line + b", " + key, 1)

    def with_record(**values):
        def change(build, _):
            build.record.update(values)
            return build.json()
        return change

    def with_source(**values):
        def change(build, _):
            build.record["source"].update(values)
            return build.json()
        return change

    def tagged(tag, status):
        def change(build, _):
            build.record["image"]["reference"] = f"r.example/app:{tag}"
            build.record["image_tag"] = status
            return build.json()
        return change

    def without(key):
        def change(build, _):
            del build.record[key]
            return build.json()
        return change

    of("not-json", parse, "a record that is no JSON", lambda build, json: b"schema = 1\n")
    of("empty", parse, "a record of no bytes", lambda build, json: b"")
    of("array", parse, "a record that is no object", lambda build, json: b"[" + json + b"]")
    of("trailing", parse, "a second record behind the first", lambda build, json: json * 2)
    of("not-utf8", parse, "a record that is no text",
       lambda build, json: json.replace(b"buildah", b"build\xff", 1))
    of("deep", parse, "a record deeper than any stack",
       lambda build, json: json.replace(b"{", b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b",", 1))
    of("doubled-commit", parse, "two commits: readers choose differently",
       doubled(b'"commit":', b'"commit": "' + b"0" * 40 + b'"'))
    of("doubled-schema", parse, "two schemas: readers choose differently",
       doubled(b'"schema":', b'"schema": "sbs-build-record-2"'))
    of("doubled-image", parse, "two images: readers choose differently",
       doubled(b'"image":', b'"image": {}'))
    of("doubled-status", parse, "two build names: readers choose differently",
       doubled(b'"build_name":', b'"build_name": "other"'))
    of("doubled-argument", parse, "two values of a build argument: readers choose differently",
       doubled(b'"A":', b'"A": "C"'))
    of("doubled-unknown", parse, "two values of what is read only by others",
       lambda build, json: json.replace(b"{", b'{"later": 1, "later": 2,', 1))
    of("doubled-unknown-deep", parse, "two values deep in what is read only by others",
       lambda build, json: json.replace(b"{", b'{"later": [{"a": {"b": 1, "b": 2}}],', 1))
    of("doubled-escaped", parse, "two schemas, one of them with an escape",
       doubled(b'"schema":', b'"sch\\u0065ma": "x"'))
    of("other-schema", "record: schema of the build record is `sbs-build-record-2`",
       "a record of a later form", with_record(schema="sbs-build-record-2"))
    of("no-source", parse, "a record that does not say of what", without("source"))
    of("build-name", "build-name: build name of the manifest is",
       "a record of another build", with_record(build_name="r.example.app.other"))
    of("image-tag", "image-tag: end of the image tag is `0000000`",
       "an image of another commit", tagged("v1-0000000", "v1-0000000"))
    of("status-tag", "image-tag: image tag of the status is `v1`",
       "a status that names another image", with_record(image_tag="v1"))
    of("other-key", "manifest-key: build record names another manifest key",
       "a record that names another key",
       with_record(manifest_public_key_pem="-----BEGIN PUBLIC KEY-----\n"))
    other = object_id(b"commit", b"other")

    def other_commit(build, _):
        build.record["source"]["commit"] = other
        return tagged("v1-" + other[:7], "v1-" + other[:7])(build, b"")

    of("other-commit", "commit: id of the commit object is", "a record of another commit",
       other_commit)
    of("other-tree", "tree: tree of the commit object is", "a record of another tree",
       with_source(tree=other))
    of("other-time", "commit-time: time of the commit object is",
       "a record of another time", with_source(commit_time=TIME + 1))
    of("no-commit-id", parse, "a commit that is no id", with_source(commit="HEAD"))
    of("absolute-context", parse, "a build context outside the repository",
       lambda build, json: json.replace(b'"context": ""', b'"context": "/etc"', 1))


def commits():
    for name, expected, about, change in [
        ("no-commit", "commit-time: `data/commit` is not a commit object",
         "a blob whose id is that of the record", lambda text: b"hello\n"),
        ("no-committer", "commit-time: `data/commit` is not a commit object",
         "a commit that nobody committed",
         lambda text: b"\n".join(text.split(b"\n")[:2]) + b"\n\n"),
        ("other-tree", "tree: tree of the commit object is",
         "a commit of another tree", lambda text: text.replace(text[5:45], b"0" * 40)),
        ("other-time", "commit-time: time of the commit object is",
         "a commit of another time", lambda text: text.replace(b"%d" % TIME, b"%d" % (TIME + 1))),
    ]:
        build = Build()
        build.commit = change(build.commit)
        build.name_commit()
        defect("commit-" + name, expected, about, build.sealed(build.tar()))
    build = Build()
    build.commit = build.commit.replace(b"message", b"another message")
    defect("commit-changed", "commit: id of the commit object is",
           "a commit whose message was changed later", build.sealed(build.tar()))


def sources():
    def of(name, expected, about, change, tree=None):
        build = Build(tree)
        change(build)
        defect("source-" + name, expected, about, build.sealed(build.tar()))

    def put(path, *args, **fields):
        def change(build):
            build.source[path] = entry(path, *args, **fields)
            build.source = dict(sorted(build.source.items()))
        return change

    def drop(path):
        return lambda build: build.source.pop(path)

    def listing(change):
        def changed(build):
            build.listing = change(build.listing)
        return changed

    docker = object_id(b"blob", b"FROM debian:12\n").encode()
    evil = object_id(b"blob", b"FROM evil:1\n").encode()

    def lie(build):
        build.listing = build.listing.replace(docker, evil)
        put("git/Dockerfile", b"FROM evil:1\n")(build)

    of("listing-lies", "tree: tree of the listing is",
       "another file, and a listing to go with it", lie)
    of("listing-lies-below", "tree: source is not that of the commit: tree listing gives "
       "directory `lib/` an id that is not its own", "a listing that is wrong in a directory",
       listing(lambda text: text.replace(object_id(b"blob", b"// a\n").encode(), evil)))
    of("listing-malformed", "tree: source is not that of the commit: `data/tree` is not what",
       "a listing that git does not print", listing(lambda text: text[:-1]))
    of("listing-mode", "tree: source is not that of the commit: `data/tree` is not what",
       "a mode that git does not know", listing(lambda text: text.replace(b"100755", b"104755")))
    of("listing-empty", "tree: tree of the listing is", "a listing of nothing",
       listing(lambda text: b""))
    of("changed", "source: source is not that of the commit: `Dockerfile` has another content",
       "a file was changed", put("git/Dockerfile", b"FROM debian:13\n"))
    of("changed-link", "source: source is not that of the commit: `link` has another content",
       "a link leads elsewhere", put("git/link", b"../../etc/shadow"))
    of("missing", "source: source is not that of the commit: `lib.rs` of the commit is not in",
       "a file is missing", drop("git/lib.rs"))
    of("missing-last", "source: source is not that of the commit: `run.sh` of the commit is not",
       "the last file is missing", drop("git/run.sh"))
    of("extra", "source: source is not that of the commit: `backdoor.c` is not in the commit",
       "a file too many", put("git/backdoor.c", b"int main;\n"))
    of("extra-below", "source: source is not that of the commit: `lib/z.rs` is not in",
       "a file too many in a directory", put("git/lib/z.rs", b"z"))
    of("extra-directory", "source: source is not that of the commit: `empty` is not in",
       "a directory too many", put("git/empty/"))
    of("executable", "source: source is not that of the commit: `lib.rs` is of another kind",
       "a file became executable", put("git/lib.rs", b"mod lib;\n", executable=True))
    of("not-executable", "source: source is not that of the commit: `run.sh` is of another kind",
       "a program is no longer executable", put("git/run.sh", b"#!/bin/sh\n"))

    module = small_tree(module=(b"160000", b""))
    of("submodule-file", "source: source is not that of the commit: `module` is of another kind",
       "a file in the place of a submodule", put("git/module", b"x"), module)

    def beside(build):
        put("git/module/")(build)
        put("git/module/a", b"x")(build)
        put("git/module2/")(build)

    of("submodule-beside", "source: source is not that of the commit: `module2` is not in",
       "a directory that begins like a submodule", beside, module)
    nested = small_tree(vendor=Tree({b"a": b"a", b"module": (b"160000", b"")}))

    def hidden(build):
        put("git/vendor/")(build)
        put("git/vendor/a", b"b")(build)
        put("git/vendor/module/")(build)

    of("submodule-around", "source: source is not that of the commit: `vendor/a` has another",
       "a changed file beside a submodule", hidden, nested)


def originals():
    """What stays refused where any order, any owner and extended headers are taken."""
    def of(name, expected, about, *parts):
        build = Build()
        defect("original-" + name, expected, about, build.sealed(build.tar(*parts)), "original")

    file = entry("git/z", b"12345678")
    extended = "entry is extended by what is not allowed: "
    of("parent", "has a `..` part", "a file above", entry("git/../../outside", b"x"))
    of("absolute", "name is absolute", "a file at an absolute path", entry("/outside", b"x"))
    of("pax-path", "has a `..` part", "an extended name that leads above",
       pax(b"path=git/../../outside"), file)
    of("pax-path-absolute", "name is absolute", "an extended name that is absolute",
       pax(b"path=/outside"), file)
    of("pax-path-nul", "name has a control character",
       "an extended name that ends elsewhere for another reader", pax(b"path=git/z\0z"), file)
    of("pax-size", extended + "size other than the header's",
       "two sizes: readers see different entries behind it", pax(b"size=512"), file)
    of("pax-twice", extended + "key `path` twice", "two extended names",
       pax(b"path=git/y", b"path=git/z"), file)
    of("pax-two-headers", extended + "name or size given twice", "two extended headers",
       pax(b"path=git/y"), pax(b"path=git/x"), file)
    of("pax-and-long-name", extended + "name or size given twice",
       "an extended name and a long one", pax(b"path=git/y"), long_name(b"git/x"), file)
    of("pax-sparse", extended + "key `GNU.sparse.major`", "a sparse file",
       pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0"), file)
    of("pax-charset", extended + "key `hdrcharset`", "a name in another alphabet",
       pax(b"hdrcharset=BINARY"), file)
    of("pax-length", extended + "record of no valid form", "a record longer than its header",
       entry("PaxHeaders/z", b"99 path=a\n", flag=b"x"), file)
    of("pax-global", "is a global extended header", "a header for all that follow",
       entry("PaxHeaders/g", b"14 path=git/y\n", flag=b"g"), file)
    for name, about, size in [
        ("negative", "a size below zero", b"\xff" * 12),
        ("negative-wrapped", "a size below zero that ends like one above",
         b"\xff" * 4 + (8).to_bytes(8, "big")),
        ("overflow", "a size of more than 64 bits that ends like a small one",
         b"\x80\0\0\x01" + (8).to_bytes(8, "big")),
        ("base-256", "a small size in the form of great ones",
         b"\x80" + (8).to_bytes(11, "big")),
        ("base-256-flag", "a great size with a flag that is no part of it",
         b"\xc0" + (1 << 33).to_bytes(11, "big")),
        ("sign", "a size with a sign", b"+0000000010\0"),
        ("behind-nul", "a size with other digits behind its end", b"10\x000000777\0"),
        ("none", "a size of no digits", b"\0" * 12),
    ]:
        of("size-" + name, "header of an entry has a size that is not written in octal digits",
           about, entry("git/z", b"12345678", size=size))
    of("size-too-large", "is larger than 8388608 bytes", "a file of eight gigabytes",
       entry("git/z", b"12345678", size=b"\x80" + (1 << 33).to_bytes(11, "big")))
    of("time-negative", "header of an entry has a time that is not written in octal digits",
       "a time before 1970 that ends like one behind", entry("git/z", b"x", mtime=b"\xff" * 12))
    of("mode-sign", "header of an entry has a mode that is not written in octal digits",
       "a mode with a sign", entry("git/z", b"x", mode=b"+000644\0"))
    of("checksum-sign", "header of an entry has a checksum that is not written in octal digits",
       "the right checksum with a sign",
       entry("git/z", b"12345678", checksum=b"+%05o\0 " % sum(_zeroed(file))))
    of("pax-size-sign", extended + "size that is no number", "an extended size with a sign",
       pax(b"size=+8"), file)
    of("prefix-of-no-ustar", extended + "prefix without the magic of ustar",
       "a name whose first part only some readers see",
       entry("git/z", b"x", magic=b"ustar  \0", prefix=b"../../outside"))
    of("prefix-of-no-magic", extended + "prefix without the magic of ustar",
       "a name whose first part only some readers see",
       entry("git/z", b"x", magic=b"", prefix=b"../../outside"))
    of("prefix-of-another-version", extended + "prefix without the magic of ustar",
       "a name whose first part only some readers see",
       entry("git/z", b"x", magic=b"ustar\x0001", prefix=b"../../outside"))
    of("prefix-parent", "has a `..` part", "a first part that leads above",
       entry("outside", b"x", prefix=b"git/../.."))
    of("through-a-link", "entry `git/z/passwd` is not in a directory of the manifest",
       "a link, and a file beneath it", entry("git/z", flag=b"2", link=b"/etc"),
       entry("git/z/passwd", b"x"))
    of("duplicate", "entry `git/lib.rs` appears twice", "which of the two is it?",
       entry("git/lib.rs", b"2"))
    of("link-and-file", "entry `git/z` appears twice", "a link, and a file that replaces it",
       entry("git/z", flag=b"2", link=b"/etc/passwd"), file)
    of("device", "entry `git/z` is a block device", "a block device",
       entry("git/z", flag=b"4", major=b"0000010\0"))
    of("unknown-top", "has an entry `etc/passwd` that does not belong there",
       "a file beside the source", entry("etc/passwd", b"x"))
    of("file-with-slash", "name has an empty part or a `.` part",
       "a file that is a directory to others", entry("git/z/", b"x", flag=b"0"))
    of("dot-slash", "entry `git/z` appears twice", "one file of two names",
       entry("./git/z", b"1"), entry("git/z", b"2"))
    of("link-in-data", "has an entry `data/x` that does not belong there",
       "a link beside the record", entry("data/x", flag=b"2", link=b"/etc/passwd"))


def thin_layout():
    def of(name, expected, about, *more, change=None):
        build = Thin()
        if change:
            change(build)
        defect("thin-" + name, expected, about, build.sealed(build.tar(*more)))

    def put(path, *args, **fields):
        def change(build):
            build.source[path] = entry(path, *args, **fields)
            build.source = dict(sorted(build.source.items()))
        return change

    def full(**fields):
        return lambda build: build.full.update(fields)

    def part(change):
        def changed(build):
            build.listing = change(build.listing)
        return changed

    def engine(path):
        return lambda build: build.record["engine"].update(dockerfile=path)

    def line(text, path):
        return next(l + b"\0" for l in text.split(b"\0") if l.endswith(b"\t" + path))

    whole = Thin().whole
    source = "dockerfile: source is not that of the commit: "
    tree = "tree: source is not that of the commit: "
    docker = object_id(b"blob", b"FROM debian:12\n").encode()
    evil = object_id(b"blob", b"FROM evil:1\n").encode()

    of("full-schema", "full: schema of `data/full.json` is `2`", "a thin manifest of a later form",
       change=full(schema=2))
    of("full-digest", "full: `data/full.json` does not parse", "a digest that is none",
       change=full(digest="sha256:03"))
    of("full-other-hash", "full: `data/full.json` does not parse", "a digest of a weaker hash",
       change=full(digest="sha1:" + "03" * 20))
    of("full-name", "full: name of the full manifest is", "the full manifest of another build",
       change=full(name="manifest.r.example.app.other.tbz"))
    of("full-name-outside", "full: name of the full manifest is",
       "a full manifest elsewhere on the disk", change=full(name="../../manifest.a.tbz"))
    of("full-size", "full: `data/full.json` does not parse", "a size below zero",
       change=full(size=-1))
    of("full-more", "full: `data/full.json` does not parse", "a member that this form has not",
       change=full(also="sha256:" + "04" * 32))

    def twice(build):
        json = build.full_json().replace(b'"digest"', b'"digest": "sha256:' + b"04" * 32 +
                                         b'", "digest"', 1)
        build.full_json = lambda: json

    of("full-twice", "full: `data/full.json` does not parse",
       "two digests: readers choose differently", change=twice)

    def long(build):
        json = build.full_json() + b" " * 5000
        build.full_json = lambda: json

    of("full-too-large", "entry `data/full.json` is larger than 4096 bytes",
       "a description that is a file's size", change=long)

    of("listing-lies", "tree: source is not that of the commit: tree listing gives directory `d/`",
       "another Dockerfile, and a listing to go with it",
       change=lambda build: (
           part(lambda text: text.replace(line(text, b"d/Dockerfile"),
                                          line(text, b"d/Dockerfile").replace(docker, evil)))(build),
           put("git/d/Dockerfile", b"FROM evil:1\n")(build)))
    of("listing-lies-at-the-top", "tree: tree of the listing is", "a listing of another top",
       change=part(lambda text: text.replace(line(text, b"run.sh"), b"")))
    of("listing-below", tree + "`lib/a.rs` is neither the Dockerfile nor on the way to it",
       "more of the listing than proves the Dockerfile",
       change=part(lambda text: text.replace(line(text, b"lib"),
                                             line(text, b"lib") + line(whole, b"lib/a.rs"))))
    of("listing-whole", tree + "`d/x/y` is neither the Dockerfile nor on the way to it",
       "the listing of the full manifest", change=part(lambda text: whole))
    of("listing-closed", tree + "tree listing gives directory `d/` an id that is not its own",
       "a directory on the way that stands there by its id only",
       change=part(lambda text: b"".join(
           l + b"\0" for l in text.split(b"\0")[:-1] if b"\td/" not in l)))
    of("listing-no-directory", tree + "`d/Dockerfile` is neither the Dockerfile nor on the way",
       "a directory on the way that is not there, but what is in it is",
       change=part(lambda text: text.replace(line(text, b"d"), b"")))
    of("listing-empty", "tree: tree of the listing is", "a listing of nothing",
       change=part(lambda text: b""))
    of("listing-malformed", tree + "`data/tree` is not what", "a listing that git does not print",
       change=part(lambda text: text[:-1]))
    of("listing-unsorted", "tree: tree of the listing is", "a listing in another order",
       change=part(lambda text: line(text, b"run.sh") + text.replace(line(text, b"run.sh"), b"")))

    of("dockerfile-changed", source + "`d/Dockerfile` has another content than in the commit",
       "a Dockerfile that is not that of the commit",
       change=put("git/d/Dockerfile", b"FROM evil:1\n"))
    of("dockerfile-executable", source + "`d/Dockerfile` is of another kind",
       "a Dockerfile of another mode",
       change=put("git/d/Dockerfile", b"FROM debian:12\n", executable=True))
    of("dockerfile-missing", source + "`d/Dockerfile` of the commit is not in the manifest",
       "no Dockerfile", change=lambda build: build.source.pop("git/d/Dockerfile"))
    of("dockerfile-other", source + "`d` is neither the Dockerfile nor on the way to it",
       "the record names another Dockerfile than the one that is here",
       change=lambda build: (engine("Dockerfile")(build), part(lambda text: b"".join(
           l + b"\0" for l in whole.split(b"\0")[:-1] if b"/" not in l.split(b"\t")[1]))(build),
           build.source.update({"git/Dockerfile": entry("git/Dockerfile", b"FROM debian:12\n")}),
           setattr(build, "source", dict(sorted(build.source.items())))))
    of("dockerfile-link", source + "`link` is of another kind", "a link as a Dockerfile",
       change=lambda build: (engine("link")(build), part(lambda text: b"".join(
           l + b"\0" for l in whole.split(b"\0")[:-1] if b"/" not in l.split(b"\t")[1]))(build),
           setattr(build, "source", {"git/link": entry("git/link", b"../../etc/passwd")})))
    of("dockerfile-none", source + "`d/none` is not in the commit",
       "a Dockerfile that the commit has not", change=engine("d/none"))
    of("dockerfile-is-a-directory", source + "`d/x` is of another kind",
       "a directory as a Dockerfile", change=engine("d/x"))
    of("file-beside", source + "`d/notes` is neither the Dockerfile nor on the way to it",
       "another file of the commit", change=put("git/d/notes"))
    of("directory-beside", source + "`lib` is neither the Dockerfile nor on the way to it",
       "another directory of the commit", change=put("git/lib/"))
    of("file-of-no-commit", source + "`d/backdoor` is neither the Dockerfile nor on the way",
       "a file that the commit has not", change=put("git/d/backdoor", b"x"))
    of("way-missing", "entry `git/d/Dockerfile` is not in a directory of the manifest",
       "a directory on the way has no entry", change=lambda build: build.source.pop("git/d/"))
    of("way-is-a-file", "entry `git/d/Dockerfile` is not in a directory of the manifest",
       "a file in the place of a directory on the way",
       change=lambda build: (build.source.pop("git/d/"),
                             setattr(build, "source", {"git/d": entry("git/d", b"x"),
                                                       **build.source})))
    of("outside", "has a `..` part", "a file above", entry("git/../../outside", b"x"))
    of("absolute", "name is absolute", "a file at an absolute path", entry("/outside", b"x"))
    of("symlink", "is a symbolic link", "a link to elsewhere",
       entry("git/z", flag=b"2", link=b"/etc/passwd"))
    of("unknown-data", "has an entry `data/z` that does not belong there", "data of no known kind",
       entry("data/z", b"x"))
    of("full-again", "entry `data/full.json` appears twice", "two descriptions",
       entry("data/full.json", b"{}"))
    of("owner", "is not the one this server writes", "a file of another user",
       change=put("git/d/Dockerfile", b"FROM debian:12\n", uid=b"0001750\0"))


def thin_archives():
    build = Thin()
    tar = build.tar()
    inner = zstd(tar)
    signature = sign(inner)
    archive, signed = build.members(inner, signature)
    good = build.sealed(tar)

    def of(name, expected, about, made):
        defect("thin-" + name, expected, about, made)

    of("no-full", "manifest has no `data/full.json` in its place",
       "a full manifest in the clothes of a thin one",
       build.sealed(b"".join(Build.fixed(build).values()) + END))
    of("rejected", "manifest was not signed, as it is, with the key", "a stranger's signature",
       build.outer(inner, sign(inner, OTHER_KEY)))
    of("of-the-full", "manifest was not signed, as it is, with the key",
       "the signature of another archive", build.outer(inner, sign(Build().inner())))
    of("bzip2-inside", "archive cannot be read or decompressed",
       "bzip2 in a thin manifest", build.wrapped(bz2.compress(tar)))
    of("full-members", "that does not belong there", "the members of a full manifest",
       zstd(b"".join(Build().members(inner, signature)) + END))
    of("in-bzip2", "that does not belong there", "the members of a thin one in a full one",
       bz2.compress(archive + signed + END, 1))
    of("names-differ", "signature is that of a manifest of another name",
       "an archive beside another manifest's signature",
       zstd(entry("manifest.r.example.app.x.thin.tar.zst", inner) + signed + END))
    of("build-name", "build-name: build name of the manifest is", "under another build's name",
       zstd(entry("manifest.r.example.app.x.thin.tar.zst", inner) +
            entry("manifest.r.example.app.x.thin.sig", signature) + END))
    of("truncated", "archive ends too early", "the end of the download is missing", good[:-200])
    of("behind", "archive cannot be read or decompressed", "bytes behind the frame", good + b"x")
    of("second-frame", "archive cannot be read or decompressed", "a second frame", good + good)
    of("skippable-frame", "archive cannot be read or decompressed",
       "a frame behind that other readers skip", good + b"\x50\x2a\x4d\x18\x01\0\0\0x")
    of("skippable-first", "archive cannot be read or decompressed",
       "a frame in front that other readers skip", b"\x50\x2a\x4d\x18\x01\0\0\0x" + good)
    of("window", "archive cannot be read or decompressed", "a window of a gigabyte",
       zstd(tar, window_log=30))
    of("dictionary", "archive cannot be read or decompressed", "a dictionary that nobody has",
       b"\x28\xb5\x2f\xfd\x01\x38\x07" + good[6:])
    of("inner-second-frame", "archive cannot be read or decompressed",
       "a signed archive of two frames", build.wrapped(inner + inner))
    of("inner-window", "archive cannot be read or decompressed", "a signed window of a gigabyte",
       build.wrapped(zstd(tar, window_log=30)))
    header = entry("manifest.a.thin.tar.zst", size=b"%011o\0" % (8 << 20))
    of("bomb", "archive unpacks to more than 100 times its size", "megabytes in some bytes",
       zstd(header)[:6] + (len(header) << 3).to_bytes(3, "little") + header +
       zstd_bomb(64)[6:])
    of("inner-bomb", "archive unpacks to more than 100 times its size",
       "megabytes in some signed bytes",
       build.wrapped(zstd(header)[:6] + b"".join(
           (len(part) << 3).to_bytes(3, "little") + part
           for part in [b"".join(list(build.fixed().values())[:2]),
                        entry("data/build.log", size=b"%011o\0" % (8 << 20))]
       ) + zstd_bomb(64)[6:]))


def write(check):
    good, thin = Build(), Thin()
    files = {
        HERE / "good.sig.tbz": good.sealed(good.tar()),
        HERE / "good.thin.sig.tar.zst": thin.sealed(thin.tar()),
    }
    for name, (archive, expected) in DEFECTS.items():
        form = "thin.sig.tar.zst" if archive[:4] == b"\x28\xb5\x2f\xfd" else "sig.tbz"
        files[HERE / name / f"manifest.{form}"] = archive
        files[HERE / name / "expect.txt"] = expected.encode()
    present = {path for path in HERE.glob("*/*") if path.parent.name != "__pycache__"}
    present.update(HERE.glob("good.*"))
    if check:
        wrong = [path for path in present | files.keys()
                 if path not in files or not path.exists() or path.read_bytes() != files[path]]
        for path in sorted(wrong):
            print(f"{path}: not what make.py makes")
        return 1 if wrong else 0
    for path in HERE.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    print(f"{len(DEFECTS)} defects")
    return 0


if __name__ == "__main__":
    for group in [outer, signatures, names, kinds, headers, layout, ends, costs, records, commits,
                  sources, originals, thin_layout, thin_archives]:
        group()
    sys.exit(write(sys.argv[1:] == ["--check"]))
