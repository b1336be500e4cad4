//! A reader of tar archives that refuses instead of skipping.

mod error;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::Range;

use tar::Header;

use crate::header::{self, Attributes, BLOCK, EntryKind};
use crate::limits::Limits;
use crate::path::{self, EntryPath, ParseEntryPathError, shown};
use crate::pax::Extended;
use crate::weakness::Weakness;

pub use self::error::{ArchiveTooLarge, UnpackError};

/// Whose manifests a reader takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compatibility {
    /// Only those of this server: one tree, one sequence of bytes.
    #[default]
    Strict,
    /// Those of the original too: any order and any owner, extended headers, links that are not
    /// followed. [`Weakness`] says what such a manifest does not prove.
    Original,
}

/// Reads the entries of an archive, one after the other; as [`Read`], the content of the last.
pub(crate) struct Unpacker<R> {
    input: R,
    compatibility: Compatibility,
    limits: Limits,
    entries: u64,
    /// Content bytes of the entry that were not read yet, and zeros behind them.
    left: u64,
    padding: usize,
    ended: bool,
    weaknesses: BTreeSet<Weakness>,
}

/// The header of an entry.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) path: EntryPath,
    pub(crate) attributes: Attributes,
}

impl<R: Read> Unpacker<R> {
    pub(crate) fn new(input: R, compatibility: Compatibility, limits: &Limits) -> Self {
        Self {
            input,
            compatibility,
            limits: *limits,
            entries: 0,
            left: 0,
            padding: 0,
            ended: false,
            weaknesses: BTreeSet::new(),
        }
    }

    /// Goes to the next entry; what was not read of the last one is read and dropped.
    ///
    /// Once it returned `None` the whole archive was read, and nothing but zeros followed.
    pub(crate) fn next_head(&mut self) -> Result<Option<Head>, UnpackError> {
        if self.ended {
            return Ok(None);
        }
        self.finish_content()?;
        let mut blocks = Vec::new();
        let mut extension = Extended::default();
        loop {
            let Some(header) = self.header(&mut blocks)? else {
                if blocks.is_empty() {
                    self.finish()?;
                    return Ok(None);
                }
                return Err(UnpackError::Truncated);
            };
            match header.as_old().linkflag {
                [b'L'] => self.long_name(&header, &mut blocks, &mut extension)?,
                [b'K'] if self.compatibility == Compatibility::Original => {
                    self.extension(&header, &mut blocks)?;
                }
                [b'x'] => self.extended(&header, &mut blocks, &mut extension)?,
                _ => return self.head(&header, &blocks, extension).map(Some),
            }
        }
    }

    /// Returns what was seen of the original's weaknesses.
    pub(crate) fn weaknesses(&self) -> &BTreeSet<Weakness> {
        &self.weaknesses
    }

    fn head(
        &mut self,
        header: &Header,
        blocks: &[u8],
        extension: Extended,
    ) -> Result<Head, UnpackError> {
        let mut name = match extension.path {
            Some(name) => name,
            None => header_name(header)?,
        };
        let size = size(header)?;
        if extension.size.is_some_and(|extended| extended != size) {
            return Err(UnpackError::Extension("size other than the header's".to_owned()));
        }
        let kind = self.kind(header, &name)?;
        if kind == EntryKind::Directory && name.ends_with(b"/") {
            name.pop();
        }
        let path = self.path(&name)?;
        if size > self.limits.entry_bytes {
            let max = self.limits.entry_bytes;
            return Err(UnpackError::EntryTooLarge { name: path.to_string(), max });
        }
        if size != 0 && !kind.is_file() {
            return Err(UnpackError::Header);
        }
        let time = number("time", &header.as_old().mtime)?;
        let attributes = Attributes { kind, size, time };
        if self.compatibility == Compatibility::Strict
            && blocks != header::encode(&path, attributes)
        {
            return Err(UnpackError::NotCanonical(path.to_string()));
        }
        self.left = size;
        self.padding = header::padding(size);
        Ok(Head { path, attributes })
    }

    fn kind(&mut self, header: &Header, name: &[u8]) -> Result<EntryKind, UnpackError> {
        let original = self.compatibility == Compatibility::Original;
        let what = match header.as_old().linkflag {
            [b'5'] => return Ok(EntryKind::Directory),
            [b'0'] => return regular(header),
            [b'\0'] if original => return regular(header),
            [b'1' | b'2'] if original => {
                self.weaknesses.insert(Weakness::Links);
                return Ok(EntryKind::Link);
            }
            [b'1'] => "hard link",
            [b'2'] => "symbolic link",
            [b'3'] => "character device",
            [b'4'] => "block device",
            [b'6'] => "FIFO",
            [b'g'] => "global extended header",
            [b'S'] => "sparse file",
            _ => "thing of no known kind",
        };
        Err(UnpackError::Kind { name: shown(name), what })
    }

    fn path(&self, name: &[u8]) -> Result<EntryPath, UnpackError> {
        let parsed = match self.compatibility {
            Compatibility::Strict => EntryPath::parse(name),
            // `tar c .` writes names that begin with `./`.
            Compatibility::Original => {
                EntryPath::parse_with_git(name.strip_prefix(b"./").unwrap_or(name))
            }
        };
        parsed.map_err(|source| UnpackError::Name { name: shown(name), source })
    }

    /// Reads the name that a GNU long name entry gives to the next one: bytes and one NUL.
    fn long_name(
        &mut self,
        header: &Header,
        blocks: &mut Vec<u8>,
        extension: &mut Extended,
    ) -> Result<(), UnpackError> {
        let content = self.extension(header, blocks)?;
        let name = content.strip_suffix(b"\0").unwrap_or(&content).to_vec();
        set_once(&mut extension.path, name)
    }

    fn extended(
        &mut self,
        header: &Header,
        blocks: &mut Vec<u8>,
        extension: &mut Extended,
    ) -> Result<(), UnpackError> {
        if self.compatibility == Compatibility::Strict {
            return Err(UnpackError::Extension("extended header".to_owned()));
        }
        let content = self.extension(header, blocks)?;
        let extended = Extended::parse(&content).map_err(UnpackError::Extension)?;
        if let Some(path) = extended.path {
            set_once(&mut extension.path, path)?;
        }
        extended.size.map_or(Ok(()), |size| set_once(&mut extension.size, size))
    }

    /// Reads the content of an entry that extends the next one.
    fn extension(&mut self, header: &Header, blocks: &mut Vec<u8>) -> Result<Vec<u8>, UnpackError> {
        let size = size(header)?;
        if size > MAX_EXTENSION {
            return Err(UnpackError::Extension(format!("more than {MAX_EXTENSION} bytes")));
        }
        self.left = size;
        self.padding = header::padding(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(UnpackError::from_io)?;
        self.finish_content()?;
        blocks.extend_from_slice(&content);
        blocks.resize(blocks.len() + header::padding(size), 0);
        Ok(content)
    }

    /// Reads a header; none where a block of zeros stands in its place.
    fn header(&mut self, blocks: &mut Vec<u8>) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(UnpackError::from_io)?;
        if is_zero(header.as_bytes()) {
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(UnpackError::TooManyEntries(self.limits.entries));
        }
        let mut summed = header.clone();
        summed.set_cksum();
        let sum = number("checksum", &header.as_old().cksum)?;
        if header::number(&summed.as_old().cksum) != Some(sum) {
            return Err(UnpackError::Header);
        }
        blocks.extend_from_slice(header.as_bytes());
        Ok(Some(header))
    }

    fn finish_content(&mut self) -> Result<(), UnpackError> {
        io::copy(self, &mut io::sink()).map_err(UnpackError::from_io)?;
        let mut zeros = Vec::new();
        let padding = self.padding as u64;
        (&mut self.input).take(padding).read_to_end(&mut zeros).map_err(UnpackError::from_io)?;
        if zeros.len() != self.padding {
            return Err(UnpackError::Truncated);
        }
        self.padding = 0;
        if is_zero(&zeros) { Ok(()) } else { Err(UnpackError::Padding) }
    }

    /// Reads what follows the first block of zeros: at least one more, and nothing else.
    fn finish(&mut self) -> Result<(), UnpackError> {
        let mut tail = Vec::new();
        (&mut self.input)
            .take(MAX_TAIL + 1)
            .read_to_end(&mut tail)
            .map_err(UnpackError::from_io)?;
        if !is_zero(&tail) || tail.len() as u64 > MAX_TAIL {
            return Err(UnpackError::TrailingData);
        }
        if tail.len() < BLOCK || !tail.len().is_multiple_of(BLOCK) {
            return Err(UnpackError::Truncated);
        }
        self.ended = true;
        Ok(())
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let count = (&mut self.input).take(self.left).read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Tells files from executable files.
fn regular(header: &Header) -> Result<EntryKind, UnpackError> {
    let mode = number("mode", &header.as_old().mode)?;
    Ok(if mode & 0o111 == 0 { EntryKind::File } else { EntryKind::Executable })
}

fn size(header: &Header) -> Result<u64, UnpackError> {
    number("size", &header.as_old().size)
}

fn number(what: &'static str, field: &[u8]) -> Result<u64, UnpackError> {
    header::number(field).ok_or(UnpackError::Number(what))
}

/// Returns the name in a header's own fields.
fn header_name(header: &Header) -> Result<Vec<u8>, UnpackError> {
    let Some(ustar) = header.as_ustar() else {
        // Python puts it in front of the name, whatever the magic is; GNU tar has times there.
        return match header.as_bytes().get(PREFIX) {
            Some(prefix) if is_zero(prefix) => field(&header.as_old().name),
            _ => Err(UnpackError::Extension("prefix without the magic of ustar".to_owned())),
        };
    };
    let mut name = field(&ustar.prefix)?;
    if !name.is_empty() {
        name.push(b'/');
    }
    name.extend(field(&ustar.name)?);
    Ok(name)
}

/// Returns a text field without the NULs that fill it.
fn field(bytes: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at(end);
    if is_zero(rest) {
        return Ok(text.to_vec());
    }
    // One reader would stop at the NUL and the next would not.
    Err(UnpackError::Name { name: shown(bytes), source: ParseEntryPathError::Control })
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UnpackError::Extension("name or size given twice".to_owned())),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Where a header of ustar has the first part of a long name.
const PREFIX: Range<usize> = 345..500;
/// Bytes: a name of the greatest length, and what surrounds it in an extended header.
const MAX_EXTENSION: u64 = 4 * path::MAX_BYTES as u64;
/// Bytes of zeros that may end an archive: more than any archiver's record.
const MAX_TAIL: u64 = 1 << 20;
