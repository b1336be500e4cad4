//! The one way in which this crate writes the header of an entry.
//!
//! Format: `docs/formats/manifest.md`, "Entry headers".

use tar::{EntryType, Header};

use crate::path::EntryPath;

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file that is executable.
    Executable,
    /// A regular file.
    File,
    /// A symbolic or hard link, whose target is not looked at. Only in manifests of the original.
    Link,
}

impl EntryKind {
    pub(crate) fn is_file(self) -> bool {
        matches!(self, Self::Executable | Self::File)
    }
}

/// What the header of an entry says besides its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
    pub(crate) time: u64,
}

/// Returns the blocks in front of an entry's content.
pub(crate) fn encode(path: &EntryPath, attributes: Attributes) -> Vec<u8> {
    let name = archive_name(path.as_bytes(), attributes.kind);
    let mut header = Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(attributes.time);
    header.set_size(attributes.size);
    match attributes.kind {
        EntryKind::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
        }
        EntryKind::Executable => header.set_mode(0o755),
        EntryKind::File | EntryKind::Link => header.set_mode(0o644),
    }
    if !matches!(attributes.kind, EntryKind::Directory) {
        header.set_entry_type(EntryType::Regular);
    }
    let mut blocks = Vec::with_capacity(BLOCK);
    if set_name(&mut header, &name).is_none() {
        blocks = long_name(&name);
        copy(&mut header.as_old_mut().name, &name);
    }
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

/// Returns the name as it stands in a header: that of a directory ends in a slash.
pub(crate) fn archive_name(path: &[u8], kind: EntryKind) -> Vec<u8> {
    let mut name = path.to_vec();
    if kind == EntryKind::Directory {
        name.push(b'/');
    }
    name
}

/// Returns a time that fits a header: negative and far times are those nearest to them.
pub(crate) fn header_time(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).min(MAX_NUMBER)
}

/// Reads a numeric field of a header.
///
/// Archivers write octal digits, with blanks in front and blanks or NULs behind; and GNU's binary
/// form (a byte 0x80, then the number, the greatest byte first) where the digits do not suffice. All
/// else is refused, for readers disagree about it: signs, negative numbers, what does not fit into 64
/// bits, and the binary form of a number that has room as digits.
pub(crate) fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, bytes)) = field.split_first() {
        let number = bytes
            .iter()
            .try_fold(0_u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)))?;
        // One digit has three bits, and the last byte is a NUL.
        let most = 1_u64.checked_shl(3 * u32::try_from(bytes.len()).ok()?)?;
        return (number >= most).then_some(number);
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_start_matches(' ').trim_end_matches([' ', '\0']);
    // `from_str_radix` would take a sign.
    let octal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    if octal { u64::from_str_radix(digits, 8).ok() } else { None }
}

/// Returns how many zero bytes follow a content of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    let used = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if used == 0 { 0 } else { BLOCK - used }
}

/// Sets a name that fits the fields of ustar: whole, or cut at the first slash that leaves at most
/// 100 bytes.
fn set_name(header: &mut Header, name: &[u8]) -> Option<()> {
    let ustar = header.as_ustar_mut()?;
    if name.len() <= ustar.name.len() {
        copy(&mut ustar.name, name);
        return Some(());
    }
    let cut = name.iter().enumerate().find_map(|(at, byte)| {
        let rest = name.len() - at - 1;
        (*byte == b'/' && rest <= ustar.name.len()).then_some(at)
    })?;
    let (prefix, rest) = name.split_at_checked(cut)?;
    let rest = rest.strip_prefix(b"/")?;
    if prefix.len() > ustar.prefix.len() || prefix.is_empty() || rest.is_empty() {
        return None;
    }
    copy(&mut ustar.prefix, prefix);
    copy(&mut ustar.name, rest);
    Some(())
}

/// Returns the entry that gives the next one a name of any length (GNU tar, `L`).
///
/// Not a PAX header: PAX names are UTF-8, git's need not be; and a PAX header could change the
/// size of the entry, which readers have disagreed about.
fn long_name(name: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    copy(&mut header.as_old_mut().name, LONG_NAME);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let size = name.len() as u64 + 1;
    header.set_size(size);
    header.set_entry_type(EntryType::GNULongName);
    header.set_cksum();
    // The name ends in a NUL, and the block in zeros.
    [header.as_bytes(), name, &vec![0; 1 + padding(size)]].concat()
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    for (place, byte) in field.iter_mut().zip(bytes) {
        *place = *byte;
    }
}

/// Bytes in a tar block (POSIX.1-2001, pax, "ustar Interchange Format").
pub(crate) const BLOCK: usize = 512;
/// The greatest number of eleven octal digits.
pub(crate) const MAX_NUMBER: u64 = 0o777_7777_7777;
const LONG_NAME: &[u8] = b"././@LongLink";

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(path: &[u8], kind: EntryKind) -> Vec<u8> {
        let size = if kind == EntryKind::Directory { 0 } else { 10 };
        encode(&EntryPath::parse(path).unwrap(), Attributes { kind, size, time: 1_700_000_000 })
    }

    /// The example of `docs/formats/manifest.md`, "Entry headers".
    #[test]
    fn every_field_is_where_the_format_has_it() {
        let block = blocks(b"git/run.sh", EntryKind::Executable);
        let mut expected = [0; BLOCK];
        for (at, text) in [
            (0, &b"git/run.sh"[..]),
            (100, b"0000755\0"),
            (108, b"0000000\0"),
            (116, b"0000000\0"),
            (124, b"00000000012\0"),
            (136, b"14524770400\0"),
            (148, b"0007726\0"),
            (156, b"0"),
            (257, b"ustar\x0000"),
        ] {
            expected[at..at + text.len()].copy_from_slice(text);
        }
        assert_eq!(block.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn directories_end_in_a_slash() {
        let block = blocks(b"git/lib", EntryKind::Directory);
        assert!(block.starts_with(b"git/lib/\0"));
        assert_eq!((&block[100..108], block[156]), (&b"0000755\0"[..], b'5'));
    }

    #[test]
    fn a_name_is_cut_at_the_first_slash_that_leaves_enough() {
        let part = [b'x'; 60];
        let path = [b"git/", &part[..], b"/", &part, b"/", &part].concat();
        let block = blocks(&path, EntryKind::File);
        assert_eq!(block.len(), BLOCK);
        // 187 bytes: behind the first slash 183 would be left, behind the second 121.
        assert!(block.starts_with(&part) && block[60] == 0);
        assert_eq!(block[345..345 + 125], [b"git/", &part[..], b"/", &part].concat());
    }

    #[test]
    fn a_name_that_fits_nowhere_stands_in_front() {
        for (length, expected) in [(100, BLOCK), (101, 3 * BLOCK), (4000, 10 * BLOCK)] {
            let path = [&b"git/"[..], &vec![b'x'; length]].concat();
            let blocks = blocks(&path, EntryKind::File);
            assert_eq!(blocks.len(), expected, "{length}");
            if expected > BLOCK {
                assert!(blocks.starts_with(b"././@LongLink\0"));
                assert_eq!(blocks[156], b'L');
                assert_eq!(blocks[BLOCK..BLOCK + path.len()], path);
                let header = &blocks[blocks.len() - BLOCK..];
                assert_eq!(header[..100], path[..100]);
            }
        }
    }

    #[test]
    fn s16_a_number_has_one_form() {
        let base_256 = |sign: u8, number: u128| {
            let mut field = number.to_be_bytes()[4..].to_vec();
            field[0] |= sign;
            field
        };
        for (field, expected) in [
            (&b"00000000012\0"[..], 10),
            (b"000000000012", 10),
            (b"         12 ", 10),
            (b"12\0\0\0\0\0\0\0\0\0\0", 10),
            (b"0000644\0", 0o644),
            (b"0014712\0 ", 0o14712),
            (b"00000000000\0", 0),
            (b"77777777777\0", MAX_NUMBER),
            (&base_256(0x80, 1 << 33), 1 << 33),
            (&base_256(0x80, u128::from(u64::MAX)), u64::MAX),
        ] {
            assert_eq!(number(field), Some(expected), "{}", field.escape_ascii());
        }
        for field in [
            &b""[..],
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"            ",
            b"+0000000012\0",
            b"-0000000012\0",
            b"0o000000012\0",
            b"0000_000012\0",
            b"00000000018\0",
            b"12\x000000000\0",
            b"12 000000000",
            b"\t0000000012\0",
            &base_256(0x80, 10),
            &base_256(0x80, u128::from(MAX_NUMBER)),
            &base_256(0x80, 1 << 64),
            &base_256(0x80, (1 << 64) + 10),
            &base_256(0xc0, 1 << 33),
            &base_256(0xff, 1 << 33),
            &[0xff; 12],
        ] {
            assert_eq!(number(field), None, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn content_is_filled_to_whole_blocks() {
        for (size, expected) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(size), expected, "{size}");
        }
    }
}
