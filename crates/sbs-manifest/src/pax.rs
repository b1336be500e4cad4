//! Extended headers (POSIX.1-2001, pax, "pax Extended Header"), which only the original's
//! manifests have.

use crate::path::shown;

/// What an extended header says that matters here.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
}

impl Extended {
    /// Parses the records `<length> <key>=<value>` and a line end.
    ///
    /// Fails with what was wrong: a record of another form, a key twice, or a key that is not one
    /// that a plain archiver writes for a file.
    pub(crate) fn parse(mut records: &[u8]) -> Result<Self, String> {
        let mut extended = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("record of no valid form")?;
            if seen.contains(&key) {
                return Err(format!("key `{}` twice", shown(key)));
            }
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"size" => extended.size = Some(number(value).ok_or("size that is no number")?),
                key if HARMLESS.contains(&key) => {}
                key => return Err(format!("key `{}`", shown(key))),
            }
            seen.push(key);
            records = rest;
        }
        Ok(extended)
    }
}

/// Splits the first record into key, value and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(records.get(..blank)?)?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let pair = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?, rest))
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // `parse` would take a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Keys that change neither which bytes an entry has nor what it is called.
const HARMLESS: [&[u8]; 9] =
    [b"atime", b"comment", b"ctime", b"gid", b"gname", b"linkpath", b"mtime", b"uid", b"uname"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_path_and_size() {
        let extended = Extended::parse(b"12 path=a/b\n20 mtime=1234567.89\n9 size=7\n").unwrap();
        assert_eq!(extended, Extended { path: Some(b"a/b".to_vec()), size: Some(7) });
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (records, expected) in [
            (&b"path=a\n"[..], "record of no valid form"),
            (b"99 path=a\n", "record of no valid form"),
            (b"10 path=ab", "record of no valid form"),
            (b"0 path=ab\n", "record of no valid form"),
            (b"3 path=a\n", "record of no valid form"),
            (b"+10 path=a\n", "record of no valid form"),
            (b"9 path=a\n9 path=b\n", "key `path` twice"),
            (b"11 size=+7\n", "size that is no number"),
            (b"22 GNU.sparse.major=1\n", "key `GNU.sparse.major`"),
            (b"21 hdrcharset=BINARY\n", "key `hdrcharset`"),
        ] {
            assert_eq!(
                Extended::parse(records).unwrap_err(),
                expected,
                "{}",
                records.escape_ascii()
            );
        }
    }
}
