use std::fmt;

use thiserror::Error;

/// The name of an archive entry: relative, `/`-separated bytes that lead nowhere else.
///
/// It need not be UTF-8, because git's names need not be. Its text form is escaped and cut, so
/// that a hostile name cannot write to a terminal; [`EntryPath::as_bytes`] is the name itself.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Parses a name of at most 4,096 bytes.
    ///
    /// Absolute names, empty and `.` parts, `..` and `.git` parts (also between backslashes, which
    /// separate parts on other systems) and control characters are refused; and with `.git` all that
    /// a file system of another system takes for it.
    pub fn parse(name: &[u8]) -> Result<Self, ParseEntryPathError> {
        let path = Self::parse_with_git(name)?;
        if path.leads_into_git() { Err(ParseEntryPathError::GitDirectory) } else { Ok(path) }
    }

    /// Parses a name that may have `.git` parts, as those in the original's manifests may.
    pub(crate) fn parse_with_git(name: &[u8]) -> Result<Self, ParseEntryPathError> {
        if name.len() > MAX_BYTES {
            return Err(ParseEntryPathError::TooLong);
        }
        if name.iter().any(u8::is_ascii_control) {
            return Err(ParseEntryPathError::Control);
        }
        if name.starts_with(b"/") {
            return Err(ParseEntryPathError::Absolute);
        }
        if parts(name).any(|part| part == b"..") {
            return Err(ParseEntryPathError::Parent);
        }
        if name.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b".")) {
            return Err(ParseEntryPathError::Part);
        }
        Ok(Self(name.to_vec()))
    }

    /// Tells whether a part is `.git`, here or on a file system of another system: where git says so
    /// with `core.protectNTFS` and `core.protectHFS`, which every object that a server of ours
    /// fetches has passed.
    pub(crate) fn leads_into_git(&self) -> bool {
        parts(&self.0).any(is_git_on_ntfs) || self.0.split(|byte| *byte == b'/').any(is_git_on_hfs)
    }

    /// Returns the name as it stands in the archive, without a final slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// Why bytes are not the name of an entry.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseEntryPathError {
    /// The name begins with a slash.
    #[error("name is absolute")]
    Absolute,

    /// The name has a NUL, a line end or another control character.
    #[error("name has a control character")]
    Control,

    /// The name has a part that is `.git` on some file system.
    #[error("name has a `.git` part")]
    GitDirectory,

    /// The name has a `..` part.
    #[error("name has a `..` part")]
    Parent,

    /// The name is empty, or one of its parts is empty or `.`.
    #[error("name has an empty part or a `.` part")]
    Part,

    /// The name is longer than 4,096 bytes.
    #[error("name is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Returns outside bytes as text for an error: escaped, and cut at 120 characters.
pub(crate) fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().take(MAX_SHOWN).map(char::from).collect()
}

fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| matches!(byte, b'/' | b'\\'))
}

/// Tells whether NTFS takes a part for `.git`: it folds case, gives it the short name `git~1`, drops
/// blanks and dots at the end, and has the name of a stream behind a colon.
fn is_git_on_ntfs(part: &[u8]) -> bool {
    let text = String::from_utf8_lossy(part);
    let name = text.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    [".git", "git~1"].iter().any(|git| name.eq_ignore_ascii_case(git))
}

/// Tells whether HFS+ takes a part for `.git`: it folds case and drops characters that nobody sees
/// (Apple TN1150, "Case-Insensitive String Comparison"). A name ends, as it does to git, where it is
/// no longer UTF-8.
fn is_git_on_hfs(part: &[u8]) -> bool {
    let text = part.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let seen = text.chars().filter(|character| {
        !matches!(character,
            '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}'
                | '\u{feff}')
    });
    seen.map(|character| character.to_ascii_lowercase()).eq(".git".chars())
}

/// Bytes: Linux's `PATH_MAX`.
pub(crate) const MAX_BYTES: usize = 4096;
const MAX_SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_git_takes() {
        for name in [&b"a"[..], b"a/b", b"a b", b"-a", b"\xff\xfe", b".github/x", b"a\\b", b"..."] {
            assert_eq!(EntryPath::parse(name).unwrap().as_bytes(), name);
        }
    }

    #[test]
    fn s16_refuses_what_is_git_on_another_file_system() {
        for name in [
            &b".git"[..],
            b".GIT",
            b".Git/config",
            b"a/.git",
            b"a\\.git\\config",
            b"git~1",
            b"GIT~1/config",
            b".git.",
            b".git ",
            b".git . .",
            b"git~1 .",
            b".git:",
            b".git::$INDEX_ALLOCATION",
            b".git.:x",
            b"git~1:a:b",
            "\u{feff}.git".as_bytes(),
            ".g\u{200c}i\u{200f}t".as_bytes(),
            ".gi\u{202a}\u{202e}T/config".as_bytes(),
            "a/.git\u{206a}\u{206f}".as_bytes(),
            b".git\xff",
        ] {
            let expected = Err(ParseEntryPathError::GitDirectory);
            assert_eq!(EntryPath::parse(name), expected, "{}", name.escape_ascii());
            EntryPath::parse_with_git(name).unwrap();
        }
        for name in [
            &b".gitignore"[..],
            b".github",
            b".gitmodules",
            b".git-blame",
            b".gi",
            b"git",
            b"git~",
            b"git~2",
            b"git~10",
            b"a.git",
            b"a:.git",
            b" .git",
            b"..git",
            ".g\u{131}t".as_bytes(),
            ".git\u{200b}".as_bytes(),
            b".g\xffit",
        ] {
            EntryPath::parse(name).unwrap();
        }
    }

    #[test]
    fn refuses_what_leads_elsewhere() {
        use ParseEntryPathError as E;
        for (name, expected) in [
            (&b""[..], E::Part),
            (b"/etc/passwd", E::Absolute),
            (b"..", E::Parent),
            (b"a/../b", E::Parent),
            (b"a\\..\\b", E::Parent),
            (b"a//b", E::Part),
            (b"a/", E::Part),
            (b"./a", E::Part),
            (b"a\0b", E::Control),
            (b"a\nb", E::Control),
            (b"\x1b[2J", E::Control),
            (b".git/config", E::GitDirectory),
            (b"a/.GIT", E::GitDirectory),
            (&[b'a'; MAX_BYTES + 1], E::TooLong),
        ] {
            assert_eq!(EntryPath::parse(name), Err(expected), "{}", name.escape_ascii());
        }
        EntryPath::parse(&[b'a'; MAX_BYTES]).unwrap();
        EntryPath::parse_with_git(b"git/.git/config").unwrap();
    }

    #[test]
    fn shows_no_raw_bytes_and_not_many() {
        let path = EntryPath::parse(&[b"\xc2\x9b31m", &[b'x'; 500][..]].concat()).unwrap();
        let text = path.to_string();
        assert!(text.is_ascii() && text.len() == MAX_SHOWN, "{text}");
    }
}
