use std::fmt;
use std::io::{self, BufRead, Read, Write};

use sbs_crypto::{
    ChunkReader, ChunkWriter, ChunkedKey, digest, hkdf_expand_sha256, hmac_sha256, random_bytes,
};
use sbs_proto::{StateHeader, StateMeta};
use zeroize::Zeroizing;

use crate::{ClientShare, OpenStateError, ServerShare};

/// What the header says of one export; the server counts, and reads its clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Export {
    /// Grows with every change of keys, import and new SECRET.
    pub epoch: u64,
    /// Grows with every export, and is stored before the export begins: it keeps two exports
    /// apart even where the random generator repeats itself.
    pub export_seq: u64,
    /// The time, in milliseconds since 1970.
    pub created_ms: u64,
    /// What whoever has the file can read.
    pub meta: StateMeta,
}

impl Export {
    fn into_header(self, server_kid: [u8; 8]) -> StateHeader {
        let Self { epoch, export_seq, created_ms, meta } = self;
        StateHeader { server_kid, epoch, export_seq, created_ms, meta }
    }
}

/// Seals any bytes under the two halves of a state image's protection, in constant memory.
///
/// The bytes of a state are written by [`StateWriter`](crate::StateWriter). A file is complete
/// only after [`finish`](Self::finish).
pub struct SealWriter<W>(ChunkWriter<W>);

impl<W: Write> SealWriter<W> {
    /// Writes the header, and whatever must stand in front of the first byte.
    pub fn new(
        export: Export,
        server: &ServerShare,
        client: &ClientShare,
        output: W,
    ) -> io::Result<Self> {
        Self::danger_with_salt(&random_bytes(), export, server, client, output)
    }

    /// The same with a salt that the caller chose, to make a file again byte for byte.
    ///
    /// Two files with one salt and one header give away their content. For tests.
    pub fn danger_with_salt(
        salt: &[u8; ChunkedKey::SALT_BYTES],
        export: Export,
        server: &ServerShare,
        client: &ClientShare,
        mut output: W,
    ) -> io::Result<Self> {
        let header = export.into_header(server.kid()).to_bytes();
        output.write_all(&header)?;
        Ok(Self(input_key(server, client).seal(salt, &context(&header), output)?))
    }

    /// Writes the end, and returns the output, which is not flushed.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W> fmt::Debug for SealWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealWriter")
    }
}

/// Opens what [`SealWriter`] sealed, in constant memory.
///
/// Every byte it gives is genuine, but only its end tells that there were all of them: nothing may
/// be used before. An error is an [`OpenStateError`] inside an [`io::Error`], from which `From`
/// takes it out; after one, there are only errors.
pub struct OpenReader<R> {
    header: StateHeader,
    chunks: ChunkReader<R>,
    // How many more bytes the content may have.
    room: u64,
}

impl<R: Read> OpenReader<R> {
    /// Reads the header and checks that the image opens with the client's share and with one of
    /// the server's, chosen by its id.
    ///
    /// `max_bytes` is the limit of the content.
    pub fn new(
        servers: &[ServerShare],
        client: &ClientShare,
        max_bytes: u64,
        mut input: R,
    ) -> Result<Self, OpenStateError> {
        let header = StateHeader::read(&mut input).map_err(OpenStateError::Header)?;
        let server = servers
            .iter()
            .find(|server| server.kid() == header.server_kid)
            .ok_or(OpenStateError::UnknownServerKey)?;
        let chunks = input_key(server, client).open(&context(&header.to_bytes()), input)?;
        Ok(Self { header, chunks, room: max_bytes })
    }

    /// Returns the header, which is genuine.
    pub fn header(&self) -> &StateHeader {
        &self.header
    }

    fn bytes(&mut self) -> Result<&[u8], OpenStateError> {
        let bytes = self.chunks.bytes()?;
        if bytes.len() as u64 > self.room {
            return Err(OpenStateError::TooLarge);
        }
        Ok(bytes)
    }
}

impl<R: Read> BufRead for OpenReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bytes().map_err(io::Error::other)
    }

    fn consume(&mut self, count: usize) {
        self.room = self.room.saturating_sub(count as u64);
        self.chunks.consume(count);
    }
}

impl<R: Read> Read for OpenReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R> fmt::Debug for OpenReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReader").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Combines the two halves: without either of them, the key is random.
fn input_key(server: &ServerShare, client: &ClientShare) -> ChunkedKey {
    // Both have 32 bytes, so that nothing can be moved from one to the other; and both go in as
    // the message of HMAC, for a key of HMAC and the same key with zeros behind it are one.
    let mut halves = Zeroizing::new([0; 64]);
    let (first, second) = halves.split_at_mut(32);
    first.copy_from_slice(server.expose_bytes());
    second.copy_from_slice(client.expose_bytes());
    // HKDF-Extract is HMAC with the salt as its key: RFC 5869, 2.2.
    let prk = hmac_sha256(COMBINE_SALT, halves.as_slice());
    ChunkedKey::from_bytes(hkdf_expand_sha256(&prk, &[PAYLOAD_INFO]))
}

/// Makes every bit of the header a part of the key.
fn context(header: &[u8]) -> Vec<u8> {
    [CONTEXT_LABEL, digest(header).as_bytes()].concat()
}

const COMBINE_SALT: &[u8] = b"sbs.state/v1 combine";
const PAYLOAD_INFO: &[u8] = b"sbs.state/v1 payload";
const CONTEXT_LABEL: &[u8] = b"sbs.state/v1 header ";
