//! Verifies, lists, shows and extracts build manifests. It needs no network and no configuration.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sbs_crypto::ManifestVerifyingKey;
use sbs_manifest::{
    Compatibility, Detail, Entry, EntryKind, KeyOrigin, Limits, Manifest, ManifestFile, Report,
    UnverifiedManifest, escaped,
};

type Failed = Box<dyn Error>;

/// Verify build manifests and read what is in them, without a network.
///
/// Every command verifies the signature and makes every check first; nothing is shown or written
/// where one does not hold. Exit code 0: it holds. 2: command line or files. 4: it does not hold.
#[derive(Parser)]
#[command(version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what the manifest proves and what it does not
    Verify {
        #[command(flatten)]
        source: Source,

        /// Say of every check what it means and what was compared
        #[arg(long)]
        explain: bool,

        /// The form of the report
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print kind, size and name of every entry
    List {
        #[command(flatten)]
        source: Source,
    },
    /// Print the build record or the build log, escaped
    Show {
        /// What to print
        what: Part,

        #[command(flatten)]
        source: Source,
    },
    /// Write the entries to a new directory, links as files, nothing set-uid
    Extract {
        #[command(flatten)]
        source: Source,

        /// The directory; it must not be there. Its owner alone may enter it.
        directory: PathBuf,
    },
}

#[derive(Args)]
struct Source {
    /// The manifest: .sig.tbz, .thin.sig.tar.zst, or an archive with its signature beside it
    file: PathBuf,

    /// The public key of the manifest, PEM, from a source that you trust
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Accept the looser form of manifests that the original server makes, which prove less
    #[arg(long)]
    original: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Log,
    Record,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(&line.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNVERIFIED),
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                let _infallible = write!(text, ": {error}");
                cause = error.source();
            }
            // If the standard error output is closed there is no one to tell.
            let _closed = writeln!(io::stderr(), "error: {}", escaped(&text));
            ExitCode::from(if error.is::<Unverified>() { UNVERIFIED } else { FAULT })
        }
    }
}

/// Does what the command says; tells whether the manifest holds.
fn run(command: &Command) -> Result<bool, Failed> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match command {
        Command::Verify { source, explain, format } => {
            let report = source.open()?.check();
            let detail = if *explain { Detail::Explained } else { Detail::Outcome };
            writeln!(out, "{}", printed(&report, detail, *format)?)?;
            out.flush()?;
            return Ok(report.verified());
        }
        Command::List { source } => list(&mut source.open_checked()?, &mut out)?,
        Command::Show { what: Part::Record, source } => {
            let mut manifest = source.open_checked()?;
            let record = if manifest.compatibility() == Compatibility::Original {
                serde_json::to_string_pretty(&manifest.status()?)?
            } else {
                serde_json::to_string_pretty(&manifest.record()?)?
            };
            for line in record.lines() {
                writeln!(out, "{}", escaped(line))?;
            }
        }
        Command::Show { what: Part::Log, source } => {
            let mut lines = Escaping { out: &mut out, line: Vec::new() };
            source.open_checked()?.write_log(&mut lines)?;
            lines.end_line()?;
        }
        Command::Extract { source, directory } => {
            if source.original {
                return Err(
                    "a manifest of the original may hold what runs when it is entered, such \
                            as git's hooks: it is not extracted"
                        .into(),
                );
            }
            extract(&mut source.open_checked()?, directory)?;
        }
    }
    out.flush()?;
    Ok(true)
}

impl Source {
    fn open(&self) -> Result<Manifest<File>, Failed> {
        let about = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let read = |path: &Path, max| -> Result<Vec<u8>, Failed> {
            let mut bytes = Vec::new();
            let file = File::open(path).map_err(|error| about(path, error))?;
            file.take(max).read_to_end(&mut bytes).map_err(|error| about(path, error))?;
            Ok(bytes)
        };
        let pem = String::from_utf8(read(&self.key, KEY_BYTES)?)?;
        let key = ManifestVerifyingKey::from_pem(&pem)?;
        let file = File::open(&self.file).map_err(|error| about(&self.file, error))?;
        if !file.metadata()?.is_file() {
            return Err(format!("{} is not a file", self.file.display()).into());
        }
        let form = if self.original { Compatibility::Original } else { Compatibility::Strict };
        let name = self.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (spool, limits) = (tempfile::tempfile()?, Limits::default());
        let unverified = match ManifestFile::of(name) {
            ManifestFile::Signed => UnverifiedManifest::read(file, spool, form, &limits),
            ManifestFile::Bare { name, signature } => {
                let signature = read(&self.file.with_file_name(signature), SIGNATURE_BYTES)?;
                UnverifiedManifest::read_bare(file, &signature, name, spool, form, &limits)
            }
        };
        let unverified = unverified.map_err(|error| Unverified(error.into()))?;
        Ok(unverified.verify(&key).map_err(|error| Unverified(error.into()))?)
    }

    /// Opens a manifest of which every check passes.
    fn open_checked(&self) -> Result<Manifest<File>, Failed> {
        let mut manifest = self.open()?;
        let report = manifest.check();
        if report.verified() {
            return Ok(manifest);
        }
        let text = printed(&report, Detail::Outcome, Format::Text)?;
        let _closed = writeln!(io::stderr(), "{text}");
        Err(Unverified("the manifest does not hold".into()).into())
    }
}

/// The manifest does not hold.
#[derive(Debug, thiserror::Error)]
#[error("not verified")]
struct Unverified(#[source] Failed);

fn printed(report: &Report, detail: Detail, format: Format) -> Result<String, Failed> {
    Ok(match format {
        Format::Text => report.to_text(detail, KeyOrigin::File),
        Format::Json => serde_json::to_string(&report.view(KeyOrigin::File))?,
    })
}

fn list(manifest: &mut Manifest<File>, out: &mut impl Write) -> Result<(), Failed> {
    let mut entries = manifest.entries()?;
    while let Some(entry) = entries.next_entry()? {
        let kind = match entry.kind() {
            EntryKind::Directory => "directory",
            EntryKind::Executable => "executable",
            EntryKind::File => "file",
            EntryKind::Link => "link",
        };
        let name = entry.path().as_bytes().escape_ascii();
        writeln!(out, "{kind:10} {:>12} {name}", entry.size())?;
    }
    Ok(())
}

/// Writes every entry beneath a directory that this makes.
///
/// The directory is new and nobody else's, the names lead nowhere else, each directory comes before
/// what is in it, and a file is only ever made anew: no link can be followed, as there is none.
fn extract(manifest: &mut Manifest<File>, directory: &Path) -> Result<(), Failed> {
    let about = |error| format!("{}: {error}", directory.display());
    DirBuilder::new().mode(0o700).create(directory).map_err(about)?;
    let result = extract_entries(manifest, directory);
    if result.is_err() {
        // What is there now is ours, and not all of it.
        let _left = fs::remove_dir_all(directory);
    }
    result
}

fn extract_entries(manifest: &mut Manifest<File>, directory: &Path) -> Result<(), Failed> {
    let mut entries = manifest.entries()?;
    while let Some(mut entry) = entries.next_entry()? {
        extract_entry(&mut entry, directory)?;
    }
    Ok(())
}

fn extract_entry(entry: &mut Entry<'_, '_, File>, directory: &Path) -> Result<(), Failed> {
    let name = std::ffi::OsStr::from_bytes(entry.path().as_bytes());
    let path = directory.join(name);
    let about = |error: io::Error| format!("{}: {error}", path.display());
    let mode = match entry.kind() {
        EntryKind::Directory => {
            DirBuilder::new().mode(0o755).create(&path).map_err(about)?;
            return Ok(());
        }
        EntryKind::Executable => 0o755,
        EntryKind::File => 0o644,
        EntryKind::Link => return Err(format!("{} is a link", entry.path()).into()),
    };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&path).map_err(about)?;
    io::copy(entry, &mut file).map_err(about)?;
    Ok(())
}

/// Prints lines of a log, which may hold anything, without what controls a terminal.
struct Escaping<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    fn end_line(&mut self) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{}", escaped(&String::from_utf8_lossy(&self.line)))?;
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) =
                piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.line.extend_from_slice(text);
            if ends && self.line.is_empty() {
                writeln!(self.out)?;
            } else if ends || self.line.len() > LINE_BYTES {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const FAULT: u8 = 2;
const UNVERIFIED: u8 = 4;
/// A line of more bytes is cut, so that a log of one line does not fill the memory.
const LINE_BYTES: usize = 1 << 20;
/// Far more than any key or signature has, so that what is cut there is refused.
const KEY_BYTES: u64 = 64 << 10;
const SIGNATURE_BYTES: u64 = 64 << 10;
