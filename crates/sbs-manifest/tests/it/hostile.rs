//! Archives that somebody made on purpose. Each is refused, and for its own reason.

use std::io::{self, Cursor};

use sbs_manifest::{Compatibility, Limits, ReadEntryError, UnverifiedManifest, sign};
use sbs_proto::ManifestName;
use tar::Header;

use crate::common::{
    COMMIT_TIME, Project, chain, compress, contents, decompress, key, open, open_as, sealed,
};

/// The entries of the inner archive of a good manifest, one by one.
struct Inner(Vec<Vec<u8>>);

impl Inner {
    fn good() -> Self {
        Self(split(&decompress(&Project::small().build().inner().0)))
    }

    fn with(mut self, entries: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.0.extend(entries);
        self
    }

    fn changed(mut self, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Self {
        change(&mut self.0);
        self
    }

    fn tar(self) -> Vec<u8> {
        self.0.concat().into_iter().chain([0; 1024]).collect()
    }
}

/// Signs an inner archive with the right key and says why it is refused nevertheless.
fn refusal(tar: &[u8]) -> String {
    refusal_as(tar, Compatibility::Strict)
}

fn refusal_as(tar: &[u8], compatibility: Compatibility) -> String {
    let archive = sealed(&name(), &compress(tar));
    let mut manifest = open_as(&archive, compatibility).unwrap();
    let error = chain(contents(&mut manifest).unwrap_err().as_ref());
    // The report says the same, and nothing that needs the whole archive passes.
    let report = manifest.check();
    assert!(report.any_failed() && !report.all_passed(), "{report:?}");
    error
}

fn check(cases: impl IntoIterator<Item = (&'static str, Vec<u8>, &'static str)>) {
    for (case, tar, expected) in cases {
        let error = refusal(&tar);
        assert!(error.contains(expected), "{case}: `{error}` is not `{expected}`");
    }
}

#[test]
fn the_archive_that_the_others_are_made_from_is_good() {
    let archive = sealed(&name(), &compress(&Inner::good().tar()));
    assert!(open(&archive).unwrap().check().all_passed());
}

#[test]
fn s16_names_that_lead_elsewhere_are_refused() {
    let long = [b"git/".to_vec(), vec![b'x'; 4093]].concat();
    let names: [(&str, &[u8], &str); 11] = [
        ("parent", b"git/../../etc/passwd", "has a `..` part"),
        ("parent alone", b"..", "has a `..` part"),
        ("parent for others", b"git/z\\..\\..\\x", "has a `..` part"),
        ("absolute", b"/etc/cron.d/x", "name is absolute"),
        ("dot", b"git/./z", "empty part or a `.` part"),
        ("empty part", b"git//z", "empty part or a `.` part"),
        ("file that is a directory to some", b"git/z/", "empty part or a `.` part"),
        ("repository", b"git/z/.git/hooks/post-checkout", "has a `.git` part"),
        ("line end", b"git/z\nz", "has a control character"),
        ("escape", b"git/z\x1b[2J", "has a control character"),
        ("NUL", b"git/z\0z", "has a control character"),
    ];
    check(names.map(|(case, name, expected)| {
        (case, Inner::good().with([entry(name, b'0', b"")]).tar(), expected)
    }));
    check([
        ("NUL in a long name", long_named(b"git/z\0z"), "has a control character"),
        ("too long", long_named(&long), "longer than 4096 bytes"),
        ("far too long", long_named(&vec![b'x'; 20_000]), "more than 16384 bytes"),
    ]);
}

#[test]
fn s16_everything_but_files_and_directories_is_refused() {
    for (flag, expected) in [
        (b'1', "is a hard link"),
        (b'2', "is a symbolic link"),
        (b'3', "is a character device"),
        (b'4', "is a block device"),
        (b'6', "is a FIFO"),
        (b'7', "is a thing of no known kind"),
        (b'S', "is a sparse file"),
        (b'g', "is a global extended header"),
        (b'V', "is a thing of no known kind"),
        (b'\0', "is a thing of no known kind"),
    ] {
        let through = entry(b"git/z/passwd", b'0', b"");
        let error = refusal(&Inner::good().with([entry(b"git/z", flag, b""), through]).tar());
        assert!(error.contains(expected), "{}: {error}", flag.escape_ascii());
    }
}

#[test]
fn s16_an_entry_has_one_header_with_one_meaning() {
    let pax = |records: &[u8]| entry(b"PaxHeaders/z", b'x', records);
    let file = || entry(b"git/z", b'0', b"12345678");
    check([
        (
            "size override",
            Inner::good().with([pax(b"9 size=1\n"), file()]).tar(),
            "extended header",
        ),
        (
            "path override",
            Inner::good().with([pax(b"9 path=x\n"), file()]).tar(),
            "extended header",
        ),
        ("name twice", Inner::good().with([long(b"git/z"), long(b"git/y"), file()]).tar(), "twice"),
        ("needless long name", Inner::good().with([long(b"git/z"), file()]).tar(), "not the one"),
        ("long name of nothing", Inner::good().with([long(b"git/z")]).tar(), "ends too early"),
        ("owner", tweaked(|header| header.set_uid(1000)), "not the one"),
        ("owner's name", tweaked(|header| header.set_username("root").unwrap()), "not the one"),
        ("set-user-id", tweaked(|header| header.set_mode(0o4755)), "not the one"),
        ("world-writable", tweaked(|header| header.set_mode(0o666)), "not the one"),
        (
            "link name",
            tweaked(|header| header.set_link_name("/etc/passwd").unwrap()),
            "not the one",
        ),
        ("time", tweaked(|header| header.set_mtime(1)), "another time"),
        ("binary size", tweaked(|header| header.as_old_mut().size = binary(8)), "octal digits"),
        (
            "no number",
            tweaked(|header| header.as_old_mut().size = *b"00000000008x"),
            "octal digits",
        ),
        ("huge size", tweaked(|header| header.as_old_mut().size = binary(1 << 40)), "larger than"),
        (
            "directory with content",
            Inner::good().with([entry(b"git/z/", b'5', b"1")]).tar(),
            "is damaged",
        ),
        ("checksum", Inner::good().changed(|entries| entries[7][0] ^= 1).tar(), "is damaged"),
        (
            "data in the padding",
            Inner::good().changed(|entries| *entries[7].last_mut().unwrap() = 1).tar(),
            "data between two entries",
        ),
    ]);
}

#[test]
fn s16_the_entries_are_those_of_a_manifest() {
    let file = |name: &'static [u8]| entry(name, b'0', b"");
    let without = |at: usize| Inner::good().changed(|entries| drop(entries.remove(at))).tar();
    check([
        (
            "duplicate",
            Inner::good().with([file(b"git/run.sh")]).tar(),
            "`git/run.sh` appears twice",
        ),
        ("duplicate record", Inner::good().with([file(b"data/build.json")]).tar(), "appears twice"),
        (
            "duplicate record in place",
            Inner::good().changed(|entries| entries.insert(2, entries[1].clone())).tar(),
            "`data/build.json` appears twice",
        ),
        ("duplicate elsewhere", Inner::good().with([file(b"git/link")]).tar(), "out of order"),
        ("unknown top", Inner::good().with([file(b"root_ssh")]).tar(), "does not belong there"),
        ("unknown data", Inner::good().with([file(b"data/x")]).tar(), "does not belong there"),
        ("no directory", Inner::good().with([file(b"git/z/z")]).tar(), "is not in a directory"),
        (
            "below a file",
            Inner::good().with([file(b"git/run.sh/z")]).tar(),
            "is not in a directory",
        ),
        ("no data", without(0), "has no `data/` in its place"),
        ("no record", without(1), "has no `data/build.json` in its place"),
        ("no log", without(2), "has no `data/build.log` in its place"),
        ("no commit", without(3), "has no `data/commit` in its place"),
        ("no tree", without(4), "has no `data/tree` in its place"),
        ("no source", without(5), "has no `git/` in its place"),
        ("empty", Inner(Vec::new()).tar(), "has no `data/` in its place"),
        (
            "swapped",
            Inner::good().changed(|entries| entries.swap(6, 7)).tar(),
            "`git/Dockerfile` is out of order",
        ),
    ]);
}

#[test]
fn nobody_goes_on_behind_a_refused_entry() {
    let hostile = [entry(b"git/y", b'2', b""), entry(b"git/z", b'0', b"")];
    let archive = sealed(&name(), &compress(&Inner::good().with(hostile).tar()));
    let mut manifest = open(&archive).unwrap();
    let mut entries = manifest.entries().unwrap();
    while entries.next_entry().is_ok() {}
    for _ in 0..3 {
        assert!(matches!(entries.next_entry(), Err(ReadEntryError::Refused)));
    }
}

#[test]
fn an_archive_ends_where_it_says() {
    let good = Inner::good().tar();
    let end = good.len() - 1024;
    check([
        ("no end", good[..end].to_vec(), "ends too early"),
        ("half an end", good[..end + 512].to_vec(), "ends too early"),
        ("odd end", good[..end + 600].to_vec(), "ends too early"),
        ("in a header", good[..end - 600].to_vec(), "ends too early"),
        ("in content", good[..end - 500].to_vec(), "ends too early"),
        ("more behind", [&good[..], b"more"].concat(), "data after its end"),
        ("archive behind", [&good[..], &good].concat(), "data after its end"),
        (
            "entry after one block",
            {
                let file = entry(b"git/z", b'0', b"");
                [&good[..end + 512], &file, &[0; 1024]].concat()
            },
            "data after its end",
        ),
        ("zeros without end", [&good[..], &vec![0; 2 << 20]].concat(), "data after its end"),
    ]);
    // What archivers write to fill their last record is no data.
    let filled = [&good[..], &[0; 10_240 - 1024]].concat();
    assert!(open(&sealed(&name(), &compress(&filled))).unwrap().check().all_passed());
}

#[test]
fn s16_cost_is_limited() {
    let build = Project::small().build();
    let archive = build.manifest();
    let tar = decompress(&build.inner().0);
    let entries = 6 + build.entries.len() as u64;
    let open_within = |limits: &Limits| -> Result<(), String> {
        let spool = Cursor::new(Vec::new());
        let unverified =
            UnverifiedManifest::read(archive.as_slice(), spool, Compatibility::Strict, limits)
                .map_err(|error| chain(&error))?;
        let mut manifest = unverified.verify(&key().verifying_key()).unwrap();
        manifest.record().map_err(|error| chain(&error))?;
        manifest.write_log(io::sink()).map_err(|error| chain(&error))?;
        contents(&mut manifest).map_err(|error| chain(error.as_ref()))?;
        let report = manifest.check();
        if report.all_passed() { Ok(()) } else { Err(format!("{report:?}")) }
    };
    let log = crate::common::LOG.len() as u64;
    let most = Limits {
        archive_bytes: archive.len() as u64,
        commit_bytes: build.commit.len() as u64,
        entries,
        entry_bytes: build.inner().0.len() as u64,
        listing_bytes: build.tree.len() as u64,
        log_bytes: log,
        unpacked_bytes: tar.len() as u64,
        ..Limits::default()
    };
    assert_eq!(open_within(&most), Ok(()));
    for (limits, expected) in [
        (Limits { archive_bytes: most.archive_bytes - 1, ..most }, "archive is larger than"),
        (
            Limits { unpacked_bytes: most.unpacked_bytes - 1, ..most },
            "archive unpacks to more than",
        ),
        (Limits { ratio: 1, ratio_from_bytes: 0, ..most }, "unpacks to more than 1 times"),
        (Limits { entries: entries - 1, ..most }, "more than 13 entries"),
        (Limits { entry_bytes: most.entry_bytes - 1, ..most }, "is larger than"),
        (Limits { record_bytes: 99, ..most }, "`data/build.json` is larger than 99 bytes"),
        (Limits { log_bytes: log - 1, ..most }, "`data/build.log` is larger than"),
        (Limits { commit_bytes: most.commit_bytes - 1, ..most }, "data/commit"),
        (Limits { listing_bytes: most.listing_bytes - 1, ..most }, "data/tree"),
    ] {
        let error = open_within(&limits).unwrap_err();
        assert!(error.contains(expected), "`{error}` is not `{expected}`");
    }
}

#[test]
fn s16_a_bomb_is_refused_before_it_is_unpacked() {
    // 1 GiB of zeros in under 100 kB, as the content of the first member.
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&entry(&member(".tbz"), b'0', b""));
    header.set_size(64 * (16 << 20));
    header.set_cksum();
    let bomb = [compress(header.as_bytes()), compress(&vec![0; 16 << 20]).repeat(64)].concat();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let limits = Limits { ratio_from_bytes: 1 << 20, ..Limits::default() };
    let mut spool = Cursor::new(Vec::new());
    let error =
        UnverifiedManifest::read(bomb.as_slice(), &mut spool, Compatibility::Strict, &limits)
            .unwrap_err();
    let error = chain(&error);
    assert!(error.contains("unpacks to more than 1000 times its size"), "{error}");
    assert!(spool.get_ref().len() < 100 << 20, "{}", spool.get_ref().len());
}

#[test]
fn r9_the_outer_archive_has_two_members_and_nothing_else() {
    let good = Project::small().build().manifest();
    let parts = split(&decompress(&good));
    let [inner, signature] = [&parts[0], &parts[1]];
    let inner_bytes = Project::small().build().inner().0;
    let named = |name: &[u8]| entry(name, b'0', &inner_bytes);
    let tail = vec![0; 1024];
    let other = named(b"manifest.r.example.app.2-0a1b2c3.x.tbz");
    for (case, tar, expected) in [
        ("nothing", vec![], "no member that ends in `.tbz`"),
        ("no signature", vec![inner], "no member that ends in `.sig`"),
        ("no archive", vec![signature], "before what it signs"),
        ("swapped", vec![signature, inner], "before what it signs"),
        ("third member", vec![inner, signature, &entry(b"x", b'0', b"")], "`x` that does not"),
        ("two archives", vec![inner, inner, signature], "does not belong there"),
        ("two signatures", vec![inner, signature, signature], "does not belong there"),
        ("other name", vec![&other, signature], "of another name"),
        ("in a directory", vec![&named(b"d/manifest.a.tbz"), signature], "does not belong there"),
        ("outside", vec![&named(b"../manifest.a.tbz"), signature], "has a `..` part"),
        ("absolute", vec![&named(b"/manifest.a.tbz"), signature], "name is absolute"),
        ("no manifest", vec![&named(b"passwd.tbz"), signature], "not that of a manifest"),
        ("no name", vec![&named(b".tbz"), signature], "not that of a manifest"),
        ("hidden", vec![&named(b"manifest..x.tbz"), signature], "not that of a manifest"),
        ("link", vec![&entry(&member(".tbz"), b'2', b""), signature], "is a symbolic link"),
        ("directory", vec![&entry(b"manifest.a.tbz/", b'5', b""), signature], "does not belong"),
    ] {
        let tar: Vec<u8> = tar.into_iter().chain([&tail]).flatten().copied().collect();
        let error = chain(open(&compress(&tar)).unwrap_err().as_ref());
        assert!(error.contains(expected), "{case}: `{error}` is not `{expected}`");
    }
}

#[test]
fn r9_a_signature_has_one_form() {
    let inner = Project::small().build().inner().0;
    let good = sign(&sbs_crypto::digest(&inner), key()).unwrap().to_string();
    let without = |digits: usize| good.split_at(digits).1.to_owned();
    for (case, text, expected) in [
        ("line end", format!("{good}\n"), "ends in a line end"),
        ("upper case", good.to_uppercase(), "something else than lower-case hex digits"),
        ("odd", without(1), "odd number of digits"),
        ("empty", String::new(), "is empty"),
        ("no hex", format!("{}zz", without(2)), "something else than lower-case hex digits"),
        ("blank", format!(" {}", without(1)), "something else than lower-case hex digits"),
        ("too long", "ab".repeat(4097), "more than 8192 digits"),
        ("longest", "ab".repeat(4096), "was not signed"),
        ("short", without(2), "was not signed"),
        ("twice", good.repeat(2), "was not signed"),
        ("zeros in front", format!("00{good}"), "was not signed"),
        ("zeros", "0".repeat(good.len()), "was not signed"),
    ] {
        let archive = outer(&inner, text.as_bytes());
        let error = chain(open(&archive).unwrap_err().as_ref());
        assert!(error.contains(expected), "{case}: `{error}` is not `{expected}`");
    }
    assert!(open(&outer(&inner, good.as_bytes())).unwrap().check().all_passed());
}

#[test]
fn r9_a_signature_of_something_else_is_refused() {
    let inner = Project::small().build().inner().0;
    let digest = sbs_crypto::digest(&inner);
    let other = sbs_crypto::digest(b"another file");
    for (case, message) in [
        ("other file", other.as_bytes().to_vec()),
        ("the archive itself, hashed once", inner.clone()),
        ("the digest in hex", digest.to_hex().into_bytes()),
        ("nothing", Vec::new()),
    ] {
        let signature = hex::encode(key().sign(&message).unwrap());
        let error = open(&outer(&inner, signature.as_bytes())).unwrap_err();
        assert!(error.to_string().contains("was not signed"), "{case}: {error}");
    }
}

#[test]
fn r9_what_follows_or_lacks_is_noticed() {
    let good = Project::small().build().manifest();
    for extra in [&b"\0"[..], b"x", b"BZh9", &compress(b"x"), &good] {
        assert!(open(&[&good[..], extra].concat()).is_err(), "{}", extra.escape_ascii());
    }
    for length in 0..good.len() {
        assert!(open(&good[..length]).is_err(), "{length}");
    }
    open(b"no archive at all").unwrap_err();
}

/// Makes an entry with this server's attributes, whatever its name and kind.
fn entry(name: &[u8], flag: u8, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkflag = [flag];
    header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(COMMIT_TIME).unwrap());
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = [&header.as_bytes()[..], content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn long(name: &[u8]) -> Vec<u8> {
    entry(b"././@LongLink", b'L', &[name, b"\0"].concat())
}

fn long_named(name: &[u8]) -> Vec<u8> {
    Inner::good().with([long(name), entry(b"git/z", b'0', b"")]).tar()
}

/// A good archive with one more file, whose header was changed.
fn tweaked(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut file = entry(b"git/z", b'0', b"12345678");
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&file[..512]);
    change(&mut header);
    header.set_cksum();
    file[..512].copy_from_slice(header.as_bytes());
    Inner::good().with([file]).tar()
}

/// A size in the base-256 form of GNU tar.
fn binary(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&size.to_be_bytes());
    field
}

/// Wraps an inner archive and any signature.
fn outer(inner: &[u8], signature: &[u8]) -> Vec<u8> {
    let members = [entry(&member(".tbz"), b'0', inner), entry(&member(".sig"), b'0', signature)];
    compress(&[members.concat(), vec![0; 1024]].concat())
}

fn member(suffix: &str) -> Vec<u8> {
    format!("{}{suffix}", name()).into_bytes()
}

fn name() -> ManifestName {
    Project::small().build().name()
}

/// Splits an archive without long names into its entries.
fn split(tar: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let mut rest = tar;
    while rest.iter().take(512).any(|byte| *byte != 0) {
        let size = Header::from_byte_slice(&rest[..512]).entry_size().unwrap();
        let length = 512 + usize::try_from(size).unwrap().next_multiple_of(512);
        let (entry, after) = rest.split_at(length);
        entries.push(entry.to_vec());
        rest = after;
    }
    entries
}
