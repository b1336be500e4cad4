use std::io::{self, Read};

use sbs_crypto::HashingReader;
use zeroize::Zeroizing;

use crate::record::{MAX_CONTENT_BYTES, RecordEntry, RecordManifest, padded};
use crate::{ContentError, OpenStateError, RecordName};

/// Reads the content of a state, which comes from an [`OpenReader`](crate::OpenReader), and gives
/// every record but `manifest.json` to `keep`.
///
/// Nothing that `keep` got may be used before this returns the list of the records: only then is it
/// known that each is whole and the one that was exported. What `keep` does not read of a record is
/// read here. A record has at most [`RecordName::max_bytes`], all together have 10 MiB.
pub fn read_records(
    input: impl Read,
    mut keep: impl FnMut(RecordName, u64, &mut dyn Read) -> io::Result<()>,
) -> Result<RecordManifest, OpenStateError> {
    let mut input = RecordInput { input, taken: 0 };
    let mut seen: Vec<RecordEntry> = Vec::new();
    loop {
        let (name, length) = input.start(seen.last().map(|entry| entry.name))?;
        let mut body = HashingReader::new((&mut input.input).take(length));
        if name == RecordName::Manifest {
            // Bounded by the limit of the record.
            let mut json = Vec::new();
            body.read_to_end(&mut json)?;
            let (_, _, bytes) = body.finish();
            input.count(length, bytes)?;
            let manifest = RecordManifest::parse(&json)?;
            check(&manifest, &seen)?;
            input.padding()?;
            return Ok(manifest);
        }
        keep(name, length, &mut body)?;
        io::copy(&mut body, &mut io::sink())?;
        let (_, sha256, bytes) = body.finish();
        input.count(length, bytes)?;
        // The schema is not known yet: `manifest.json` tells it.
        seen.push(RecordEntry { bytes, name, schema: 0, sha256 });
    }
}

/// Holds what `manifest.json` lists against what was there.
fn check(manifest: &RecordManifest, seen: &[RecordEntry]) -> Result<(), ContentError> {
    for name in RecordName::REQUIRED {
        if !seen.iter().any(|entry| entry.name == name) {
            return Err(ContentError::Missing { name });
        }
    }
    let mut found = seen.iter();
    for listed in &manifest.records {
        let Some(found) = found.next().filter(|found| found.name == listed.name) else {
            return Err(ContentError::Missing { name: listed.name });
        };
        if (found.bytes, found.sha256) != (listed.bytes, listed.sha256) {
            return Err(ContentError::Digest { name: listed.name });
        }
    }
    match found.next() {
        Some(unlisted) => Err(ContentError::Digest { name: unlisted.name }),
        None => Ok(()),
    }
}

/// The content of a state, and how much of it was taken.
struct RecordInput<R> {
    input: R,
    taken: u64,
}

impl<R: Read> RecordInput<R> {
    /// Reads what stands in front of a record, and checks all of it before the record is read.
    fn start(&mut self, last: Option<RecordName>) -> Result<(RecordName, u64), OpenStateError> {
        let name_length = u16::from_be_bytes(self.array()?).into();
        let mut text = [0; MAX_NAME_BYTES];
        let text = text.get_mut(..name_length).ok_or(ContentError::UnknownRecord)?;
        self.exact(text)?;
        let name = RecordName::parse(text).ok_or(ContentError::UnknownRecord)?;
        if last.is_some_and(|last| last >= name) {
            return Err(ContentError::Order { name }.into());
        }
        let length = u64::from_be_bytes(self.array()?);
        if length > name.max_bytes() || self.taken + length > MAX_CONTENT_BYTES {
            return Err(OpenStateError::TooLarge);
        }
        Ok((name, length))
    }

    /// Counts a record that was read, and refuses one that is shorter than it says.
    fn count(&mut self, length: u64, got: u64) -> Result<(), ContentError> {
        self.taken += got;
        if got < length { Err(ContentError::Cut) } else { Ok(()) }
    }

    /// Reads the padding: exactly so many zeros as belong to the content, and the end.
    fn padding(mut self) -> Result<(), OpenStateError> {
        let mut left = padded(self.taken) - self.taken;
        let mut buffer = [0; 1024];
        loop {
            let count = match self.input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if count == 0 {
                return if left == 0 { Ok(()) } else { Err(ContentError::Padding.into()) };
            }
            let zeros = buffer.get(..count).is_some_and(|bytes| bytes.iter().all(|&b| b == 0));
            left = left.checked_sub(count as u64).filter(|_| zeros).ok_or(ContentError::Padding)?;
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OpenStateError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), OpenStateError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ContentError::Cut.into(),
            _ => OpenStateError::from(error),
        })?;
        self.taken += bytes.len() as u64;
        Ok(())
    }
}

/// Keeps a record in memory that is wiped.
pub(crate) fn collect(length: u64, body: &mut dyn Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // The whole room at once, which the limit of the record bounds: a vector that grows leaves
    // copies of secrets behind.
    let room = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Zeroizing::new(vec![0; room]);
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match body.read(free) {
            // What is missing is told once the record ends.
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

// Longer than every name.
const MAX_NAME_BYTES: usize = 32;
