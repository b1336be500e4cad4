use std::io::{self, Read};

use sbs_proto::ManifestName;

/// How much of a build a manifest holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Everything, with every byte of the source: bzip2.
    Full,
    /// The same evidence without the source, but for the Dockerfile: Zstandard, some kilobytes.
    Thin,
}

impl Form {
    /// Returns the form as a word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Thin => "thin",
        }
    }

    /// Returns what the name of the inner archive ends in, behind the manifest's name.
    pub fn archive_suffix(self) -> &'static str {
        match self {
            Self::Full => ".tbz",
            Self::Thin => ".thin.tar.zst",
        }
    }

    /// Returns what the name of the signature ends in, behind the manifest's name.
    pub fn signature_suffix(self) -> &'static str {
        match self {
            Self::Full => ".sig",
            Self::Thin => ".thin.sig",
        }
    }

    /// Tells by its first bytes what an archive is compressed with, and so which form it has; gives
    /// the bytes back in front of the others. What is neither is left to fail as a full one.
    pub(crate) fn detect<R: Read>(mut archive: R) -> io::Result<(Self, impl Read)> {
        let mut start = Vec::new();
        archive.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
        let form = if start == ZSTD_MAGIC { Self::Thin } else { Self::Full };
        Ok((form, io::Cursor::new(start).chain(archive)))
    }
}

/// What a file of a manifest holds, by its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ManifestFile {
    /// Archive and signature in one file, for [`UnverifiedManifest::read`].
    ///
    /// [`UnverifiedManifest::read`]: crate::UnverifiedManifest::read
    Signed,
    /// The archive alone, for [`UnverifiedManifest::read_bare`]; its signature is in a file beside
    /// it.
    ///
    /// [`UnverifiedManifest::read_bare`]: crate::UnverifiedManifest::read_bare
    Bare {
        /// The name of the manifest.
        name: ManifestName,
        /// The name of the file with the signature.
        signature: String,
    },
}

impl ManifestFile {
    /// Tells by the name of a file, without its directory, what it holds.
    ///
    /// `<name>.tbz` and `<name>.thin.tar.zst` are bare archives; any other file is taken for a whole
    /// manifest, and refused when it is read if it is none.
    pub fn of(file_name: &str) -> Self {
        if file_name.ends_with(".sig.tbz") {
            return Self::Signed;
        }
        for form in [Form::Thin, Form::Full] {
            if let Some(stem) = file_name.strip_suffix(form.archive_suffix())
                && let Ok(name) = ManifestName::parse(stem)
            {
                let signature = format!("{stem}{}", form.signature_suffix());
                return Self::Bare { name, signature };
            }
        }
        Self::Signed
    }
}

/// The first bytes of a Zstandard frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_form_and_are_not_lost() {
        for (bytes, expected) in [
            (&b"\x28\xb5\x2f\xfd rest"[..], Form::Thin),
            (b"\x28\xb5\x2f\xfd", Form::Thin),
            (b"\x28\xb5\x2f", Form::Full),
            (b"BZh9 rest", Form::Full),
            (b"", Form::Full),
        ] {
            let (form, mut archive) = Form::detect(bytes).unwrap();
            let mut read = Vec::new();
            archive.read_to_end(&mut read).unwrap();
            assert_eq!((form, read.as_slice()), (expected, bytes));
        }
    }

    #[test]
    fn the_name_of_a_file_tells_whether_its_signature_is_elsewhere() {
        let bare = |signature: &str| ManifestFile::Bare {
            name: ManifestName::parse("manifest.a").unwrap(),
            signature: signature.to_owned(),
        };
        for (name, expected) in [
            ("manifest.a.sig.tbz", ManifestFile::Signed),
            ("manifest.a.tbz", bare("manifest.a.sig")),
            ("manifest.a.thin.tar.zst", bare("manifest.a.thin.sig")),
            ("manifest.a.thin.sig.tar.zst", ManifestFile::Signed),
            ("manifest.a", ManifestFile::Signed),
            ("a.tbz", ManifestFile::Signed),
            ("..tbz", ManifestFile::Signed),
        ] {
            assert_eq!(ManifestFile::of(name), expected, "{name}");
        }
    }
}
