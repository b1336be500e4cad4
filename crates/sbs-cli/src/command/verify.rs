use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use sbs_crypto::{HashingReader, ManifestVerifyingKey};
use sbs_manifest::{
    Compatibility, Detail, Form, KeyOrigin, Limits, Manifest, ManifestFile, ManifestSignature,
    ReadManifestError, Report, UnverifiedManifest,
};

use crate::error::{CommandError, Kind};
use crate::file;
use crate::limits::PEM_BYTES;
use crate::ui::Ui;

/// Where the key comes from that a manifest is verified with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeySource {
    /// A file of the user's.
    File(PathBuf),
    /// The server that the manifest comes from.
    Server,
}

/// A manifest whose signature is good, with its two parts.
pub(crate) struct Opened {
    inner: File,
    manifest: Manifest<File>,
    pub(crate) signature: ManifestSignature,
}

/// What is asked about a manifest file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) file: &'a Path,
    /// The thin manifest that should belong to it.
    pub(crate) thin: Option<&'a Path>,
    pub(crate) key: &'a Path,
    pub(crate) form: Compatibility,
    pub(crate) detail: Detail,
}

/// Verifies a manifest file with a key file.
pub(crate) fn run(question: &Question<'_>, ui: &Ui) -> Result<(), CommandError> {
    let Question { file, thin, key, form, detail } = *question;
    let source = KeySource::File(key.to_owned());
    let key = read_key(key)?;
    let mut full = open_file(file, &key, form, ui)?;
    let Some(thin) = thin else { return full.report(&source, detail, ui) };
    full.require(file, Form::Full)?;
    let mut other = open_file(thin, &key, form, ui)?;
    other.require(thin, Form::Thin)?;
    full.report(&source, detail, ui)?;
    let mut report = other.manifest.check();
    report.hold_against(&mut other.manifest, &full.manifest);
    other.print(&report, &source, detail, ui)
}

/// Opens a manifest file and verifies its signature.
fn open_file(
    path: &Path,
    key: &ManifestVerifyingKey,
    form: Compatibility,
    ui: &Ui,
) -> Result<Opened, CommandError> {
    let file = file::open(path)?;
    let size = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
    let archive = ui.reading(file, size);
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let spool = new_spool()?;
    let limits = Limits::default();
    let (unverified, bare) = match ManifestFile::of(file_name) {
        ManifestFile::Signed => (UnverifiedManifest::read(archive, spool, form, &limits), false),
        ManifestFile::Bare { name, signature } => {
            let signature = file::read(&path.with_file_name(signature), SIGNATURE_BYTES)
                .map_err(|error| CommandError::from(error).hint(BARE_HINT))?;
            let read =
                UnverifiedManifest::read_bare(archive, &signature, name, spool, form, &limits);
            (read, true)
        }
    };
    let opened = verified(unverified, key, form)?;
    let files = opened.manifest.name().files();
    let expected = match opened.form() {
        Form::Full => files.full,
        Form::Thin => files.thin,
    };
    if !bare && file_name != expected {
        ui.note(format_args!("the file was named {expected} when it was made"));
    }
    Ok(opened)
}

/// Says whose manifests are accepted.
pub(crate) fn form(original: bool) -> Compatibility {
    if original { Compatibility::Original } else { Compatibility::Strict }
}

/// Reads a file with the public key of a manifest.
pub(crate) fn read_key(path: &Path) -> Result<ManifestVerifyingKey, CommandError> {
    let hint = format!(
        "`{}` must be the RSA public key of a manifest, PEM, as sbs get-publickey saves it",
        path.display()
    );
    parse_key(&file::read_text(path, PEM_BYTES)?).map_err(|error| error.hint(hint))
}

/// Parses the public key of a manifest.
pub(crate) fn parse_key(pem: &str) -> Result<ManifestVerifyingKey, CommandError> {
    ManifestVerifyingKey::from_pem(pem).map_err(|error| CommandError::new(Kind::Config, error))
}

/// Reads a manifest and verifies its signature.
pub(crate) fn open(
    archive: impl Read,
    key: &ManifestVerifyingKey,
    form: Compatibility,
) -> Result<Opened, CommandError> {
    let spool = new_spool()?;
    verified(UnverifiedManifest::read(archive, spool, form, &Limits::default()), key, form)
}

impl Opened {
    /// Returns the inner archive, from its start.
    pub(crate) fn inner(&self) -> Result<&File, CommandError> {
        (&self.inner).rewind().map_err(local)?;
        Ok(&self.inner)
    }

    /// Makes and prints every check; an error if one does not hold.
    pub(crate) fn report(
        &mut self,
        key: &KeySource,
        detail: Detail,
        ui: &Ui,
    ) -> Result<(), CommandError> {
        let report = self.manifest.check();
        self.print(&report, key, detail, ui)
    }

    /// Makes sure that the signature is good for the archive and for no changed copy of it, with one
    /// byte more or with one other byte.
    pub(crate) fn refuses_changes(&self, key: &ManifestVerifyingKey) -> Result<(), CommandError> {
        let good = |archive: &mut dyn Read| -> Result<bool, CommandError> {
            let mut hashing = HashingReader::new(BufReader::with_capacity(1 << 16, archive));
            io::copy(&mut hashing, &mut io::sink()).map_err(local)?;
            let (_, digest, _) = hashing.finish();
            Ok(key.verify(digest.as_bytes(), self.signature.as_bytes()).is_ok())
        };
        let unchanged = good(&mut self.inner()?)?;
        let longer = good(&mut self.inner()?.chain(&[0][..]))?;
        let mut rest = self.inner()?;
        let mut first = [0];
        rest.read_exact(&mut first).map_err(local)?;
        let other = good(&mut first.map(|byte| byte ^ 1).as_slice().chain(&mut rest))?;
        if unchanged && !longer && !other {
            return Ok(());
        }
        Err(CommandError::new(
            Kind::Unverified,
            "the check of signatures does not tell copies apart",
        ))
    }

    /// Returns how much the manifest holds.
    pub(crate) fn form(&self) -> Form {
        self.manifest.form()
    }

    fn require(&self, path: &Path, form: Form) -> Result<(), CommandError> {
        if self.form() == form {
            return Ok(());
        }
        let text = format!("`{}` is not a {} manifest", path.display(), form.as_str());
        Err(CommandError::new(Kind::Usage, text)
            .hint("the full manifest comes first, the thin one behind --thin"))
    }

    fn print(
        &self,
        report: &Report,
        key: &KeySource,
        detail: Detail,
        ui: &Ui,
    ) -> Result<(), CommandError> {
        let key = key.origin();
        let json = serde_json::to_value(report.view(key));
        let json = json.map_err(|error| CommandError::new(Kind::Internal, error))?;
        ui.result(report.to_text(detail, key), json)?;
        if report.verified() {
            return Ok(());
        }
        let error = CommandError::new(Kind::Unverified, "the manifest does not hold");
        Err(with_hint(error, self.manifest.compatibility()))
    }
}

impl KeySource {
    fn origin(&self) -> KeyOrigin {
        match self {
            Self::File(_) => KeyOrigin::File,
            Self::Server => KeyOrigin::Server,
        }
    }
}

fn local(error: io::Error) -> CommandError {
    CommandError::new(Kind::Config, error)
}

fn new_spool() -> Result<File, CommandError> {
    // It has no name: nobody else can change it between the check and its use.
    tempfile::tempfile().map_err(|error| CommandError::new(Kind::Config, error))
}

fn verified(
    unverified: Result<UnverifiedManifest<File>, ReadManifestError>,
    key: &ManifestVerifyingKey,
    form: Compatibility,
) -> Result<Opened, CommandError> {
    let unverified = unverified.map_err(|error| match error {
        ReadManifestError::Spool(_) => CommandError::new(Kind::Config, error),
        error => with_hint(CommandError::new(Kind::Unverified, error), form),
    })?;
    let signature = unverified.signature().clone();
    let inner = unverified.spool().try_clone();
    let inner = inner.map_err(|error| CommandError::new(Kind::Config, error))?;
    let manifest = unverified.verify(key).map_err(|error| {
        CommandError::new(Kind::Unverified, error).hint(
            "is the key that of this build? each key is for one image definition of one server",
        )
    })?;
    Ok(Opened { inner, manifest, signature })
}

fn with_hint(error: CommandError, form: Compatibility) -> CommandError {
    match form {
        Compatibility::Original => error,
        Compatibility::Strict => {
            error.hint("is the file whole? if the original server made it, give --original")
        }
    }
}

/// Bytes of a `.sig` file: more than any signature has, so that a longer one fails as one.
const SIGNATURE_BYTES: u64 = 16 << 10;
const BARE_HINT: &str =
    "a manifest without its signature inside needs the file with the signature beside it";
