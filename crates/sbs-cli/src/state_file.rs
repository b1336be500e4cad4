//! State images in files: as their bytes, or in the JSON that the original's client saves.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use sbs_client::limits::STATE_BYTES;
use sbs_proto::{ReadStateHeaderError, StateHeader, StateImageName};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::file::{self, ReadFileError};
use crate::limits::STATE_JSON_BYTES;

/// A state image that was found in a file.
#[derive(Debug)]
pub(crate) struct StateFile {
    /// Its bytes, at the start.
    pub(crate) bytes: File,
    pub(crate) form: StateForm,
    /// The name that stands beside it, if it is in JSON. Nothing proves it.
    pub(crate) name: Option<String>,
    pub(crate) size: u64,
}

/// In which form a state image is kept in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StateForm {
    /// In base64, in the JSON of the v1 reply.
    Json,
    /// As its bytes.
    Raw,
}

impl StateForm {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }
}

impl StateFile {
    /// Opens a file; its first byte tells the form.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenStateFileError> {
        let failed = |source| ReadFileError::Io { path: path.to_owned(), source };
        let mut bytes = file::open(path)?;
        let mut first = [0];
        let count = bytes.read(&mut first).map_err(failed)?;
        if count == 1 && first == *b"{" {
            return Self::open_json(path);
        }
        bytes.rewind().map_err(failed)?;
        let size = bytes.metadata().map_err(failed)?.len();
        if size > STATE_BYTES {
            return Err(
                ReadFileError::TooLarge { limit: STATE_BYTES, path: path.to_owned() }.into()
            );
        }
        Ok(Self { bytes, form: StateForm::Raw, name: None, size })
    }

    /// Reads the header, and goes back to the start. Nothing of it is proved.
    pub(crate) fn header(&mut self) -> Result<StateHeader, ReadStateHeaderError> {
        let header = StateHeader::read(&mut self.bytes)?;
        self.bytes.rewind()?;
        Ok(header)
    }

    fn open_json(path: &Path) -> Result<Self, OpenStateFileError> {
        #[derive(Deserialize)]
        struct Saved {
            name: Option<String>,
            state: Option<String>,
        }
        let text = file::read(path, STATE_JSON_BYTES)?;
        let failed = |source| OpenStateFileError::Spool { source };
        let not_json = |_| OpenStateFileError::NotJson { path: path.to_owned() };
        let Saved { name, state } = serde_json::from_slice(&text).map_err(not_json)?;
        let state = state.ok_or_else(|| OpenStateFileError::Elsewhere { path: path.to_owned() })?;
        let state = STANDARD.decode(state);
        let state = state.map_err(|_| OpenStateFileError::NotBase64 { path: path.to_owned() })?;
        let mut bytes = tempfile::tempfile().map_err(failed)?;
        bytes.write_all(&state).map_err(failed)?;
        bytes.rewind().map_err(failed)?;
        Ok(Self { bytes, form: StateForm::Json, name, size: state.len() as u64 })
    }
}

/// Writes what the original's client saves of an export: the reply, with the state image in base64 if
/// there is one.
pub(crate) fn write_json(
    mut out: impl Write,
    name: &StateImageName,
    export_tag: &Value,
    image: Option<&mut dyn Read>,
) -> io::Result<()> {
    write!(out, "{{\"name\": \"{name}\", \"export_tag\": {export_tag}")?;
    if let Some(image) = image {
        write!(out, ", \"state\": \"")?;
        let mut encoder = EncoderWriter::new(&mut out, &STANDARD);
        io::copy(image, &mut encoder)?;
        encoder.finish()?;
        drop(encoder);
        write!(out, "\"")?;
    }
    write!(out, "}}")?;
    out.flush()
}

/// Why a file was not taken for one with a state image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenStateFileError {
    #[error("`{}` says only that the state image is in a bucket", path.display())]
    Elsewhere { path: PathBuf },

    #[error("`state` in `{}` is not standard base64", path.display())]
    NotBase64 { path: PathBuf },

    #[error("`{}` is not the JSON that get-state-image saves", path.display())]
    NotJson { path: PathBuf },

    #[error(transparent)]
    Read(#[from] ReadFileError),

    #[error("cannot write a temporary file")]
    Spool { source: io::Error },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(image: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        let name = StateImageName::parse("b.1").unwrap();
        let mut image = image;
        let image = image.as_mut().map(|image| image as &mut dyn Read);
        write_json(&mut out, &name, &"t\"".into(), image).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_is_what_the_original_writes_and_is_read_again() {
        assert_eq!(written(None), r#"{"name": "b.1", "export_tag": "t\""}"#);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for length in [0, 1, 2, 3, 100_000] {
            let image = vec![0xfb; length];
            let json = written(Some(&image));
            let value: Value = serde_json::from_str(&json).unwrap();
            assert_eq!((&value["name"], &value["export_tag"]), (&"b.1".into(), &"t\"".into()));
            fs::write(&path, json).unwrap();
            let mut file = StateFile::open(&path).unwrap();
            let mut bytes = Vec::new();
            file.bytes.read_to_end(&mut bytes).unwrap();
            assert_eq!((file.form, file.size, bytes), (StateForm::Json, length as u64, image));
            assert_eq!(file.name.as_deref(), Some("b.1"));
        }
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for (text, expected) in [
            ("{\"name\":\"b.1\",\"export_tag\":\"t\"}", "says only"),
            ("{\"state\":\"!\"}", "not standard base64"),
            ("{\"state\":", "not the JSON"),
        ] {
            fs::write(&path, text).unwrap();
            let error = StateFile::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::write(&path, "other").unwrap();
        let error = StateFile::open(&path).unwrap().header().unwrap_err();
        assert!(matches!(error, ReadStateHeaderError::NotAStateImage), "{error}");
        File::create(&path).unwrap().set_len(STATE_BYTES + 1).unwrap();
        let error = StateFile::open(&path).unwrap_err();
        assert!(matches!(error, OpenStateFileError::Read(ReadFileError::TooLarge { .. })));
    }
}
