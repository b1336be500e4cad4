//! A stream that may have so many bytes and no more.

use std::io::{self, Read, Write};

use crate::compress::Excess;

/// Counts what goes through a reader or a writer, and fails once it is more than an archive may
/// have.
pub(crate) struct Counted<S> {
    stream: S,
    bytes: u64,
    max: u64,
}

impl<S> Counted<S> {
    /// Lets `max` bytes through.
    pub(crate) fn new(stream: S, max: u64) -> Self {
        Self { stream, bytes: 0, max }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Returns how many bytes went through.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&mut self, count: usize) -> io::Result<usize> {
        self.bytes += count as u64;
        if self.bytes > self.max {
            return Err(io::Error::other(Excess::Archive(self.max)));
        }
        Ok(count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.count(count)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.count(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
