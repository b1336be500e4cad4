//! The root secret in a file: it protects a copied data directory, and nothing against whoever
//! reads the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use sbs_state::{Portability, RootSecret};
use zeroize::Zeroizing;

use crate::root_secret::error::WriteNewError;
use crate::root_secret::{Held, OpenRootSecretError, Provider};
use crate::store::{check_parents, read_secret_file};

pub(super) fn open(path: &Path) -> Result<Held, OpenRootSecretError> {
    Ok(Held {
        name: Provider::File.name(),
        portability: Portability::Anywhere,
        secret: read(path)?,
        counter: None,
    })
}

/// Reads and parses a secret file.
pub(super) fn read(path: &Path) -> Result<RootSecret, OpenRootSecretError> {
    let content = read_secret_file(path)?;
    RootSecret::parse(&content)
        .map_err(|source| OpenRootSecretError::Parse { path: path.to_owned(), source })
}

/// Writes a secret as 64 hex digits and a line feed, which paper can keep too.
pub(super) fn write_secret(path: &Path, secret: &RootSecret) -> Result<(), WriteNewError> {
    let mut line = Zeroizing::new([b'\n'; 65]);
    let (digits, _) = line.split_at_mut(64);
    hex::encode_to_slice(secret.expose_bytes(), digits).expect("64 digits have room in 64 bytes");
    write_new(path, &*line)
}

/// Writes a file that is not there yet, mode 0600, and makes it last. Its directory is made if it is
/// missing, open to its owner alone.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), WriteNewError> {
    if let Some(parent) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(WriteNewError::Io)?;
    }
    check_parents(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(WriteNewError::Exists);
        }
        file => file.map_err(WriteNewError::Io)?,
    };
    fill(file, path, content).map_err(|error| {
        // Half a secret is none, and would be in the way of the next try.
        let _gone = fs::remove_file(path);
        WriteNewError::Io(error)
    })
}

fn fill(mut file: File, path: &Path, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
