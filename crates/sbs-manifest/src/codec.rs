//! The two ways in which archives are compressed, behind one face each for reading and writing.

use std::io::{self, Read, Write};

use crate::compress::StreamWriter;
use crate::decompress::Unpacked;
use crate::form::Form;
use crate::limits::Limits;
use crate::zstandard::{FrameReader, FrameWriter};

/// A writer that must be told that nothing follows.
pub(crate) trait Compressor: Write {
    /// Where the compressed bytes go.
    type Out: Write;

    /// Writes what is left; returns where it went.
    fn finish(self) -> io::Result<Self::Out>;
}

impl<W: Write> Compressor for StreamWriter<W> {
    type Out = W;

    fn finish(self) -> io::Result<W> {
        Self::finish(self)
    }
}

impl<W: Write> Compressor for FrameWriter<W> {
    type Out = W;

    fn finish(self) -> io::Result<W> {
        Self::finish(self)
    }
}

/// Reads an archive of either form.
pub(crate) enum Decompressor<R> {
    Bzip2(Unpacked<R>),
    Zstandard(FrameReader<R>),
}

impl<R: Read> Decompressor<R> {
    pub(crate) fn new(archive: R, form: Form, limits: &Limits) -> io::Result<Self> {
        Ok(match form {
            Form::Full => Self::Bzip2(Unpacked::new(archive, limits)),
            Form::Thin => Self::Zstandard(FrameReader::new(archive, &limits.of_thin())?),
        })
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bzip2(reader) => reader.read(buffer),
            Self::Zstandard(reader) => reader.read(buffer),
        }
    }
}
