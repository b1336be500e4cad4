//! Everything that is printed is printed here: data on the standard output, all else on the
//! standard error output.

use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use sbs_client::{Event, Shown, is_deceptive};
use serde_json::Value;
use thiserror::Error;

use crate::args::{Format, Verbosity};
use crate::error::{CommandError, Kind};

/// The two outputs, in the form that the user asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    bar: ProgressBar,
    format: Format,
    verbosity: Verbosity,
}

impl Ui {
    pub(crate) fn new(format: Format, verbosity: Verbosity) -> Self {
        let seen = verbosity != Verbosity::Quiet && io::stderr().is_terminal();
        let bar = if seen { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style = "{msg} {wide_bar} {bytes}/{total_bytes}";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, format, verbosity }
    }

    /// Prints a result, as text or as JSON.
    pub(crate) fn result(&self, text: impl Display, json: Value) -> Result<(), CommandError> {
        let text = match self.format {
            Format::Text => text.to_string(),
            Format::Json => to_json(json),
        };
        self.bar.finish_and_clear();
        written(writeln!(anstream::stdout(), "{text}"))
    }

    /// Prints a log whole, as its lines or as one JSON object.
    pub(crate) fn whole_log(&self, log: &str) -> Result<(), CommandError> {
        match self.format {
            Format::Text => self.log(log),
            Format::Json => self.result("", serde_json::json!({"log": log})),
        }
    }

    /// Prints lines of a log, which may hold anything.
    pub(crate) fn log(&self, lines: &str) -> Result<(), CommandError> {
        let mut out = BufWriter::new(anstream::stdout().lock());
        for line in lines.split_terminator('\n') {
            written(match self.format {
                Format::Text => writeln!(out, "{}", Shown::line(line)),
                Format::Json => writeln!(out, "{}", to_json(serde_json::json!({"line": line}))),
            })?;
        }
        written(out.flush())
    }

    /// Tells what is going on.
    pub(crate) fn note(&self, text: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.tell(text);
        }
    }

    /// Tells what is going on to whoever wants to know it all.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.tell(text);
        }
    }

    /// Tells of something that should be changed.
    pub(crate) fn warning(&self, text: impl Display) {
        let style = AnsiColor::Yellow.on_default().bold();
        self.tell(format_args!("{style}warning:{style:#} {text}"));
    }

    /// Tells why the command ended.
    pub(crate) fn error(&self, error: &CommandError) {
        if error.kind() == Kind::Closed {
            return;
        }
        self.bar.finish_and_clear();
        let style = AnsiColor::Red.on_default().bold();
        self.tell(format_args!("{style}error:{style:#} {}", Shown::line(&error.to_string())));
        let style = Style::new().bold();
        for hint in error.hints() {
            self.tell(format_args!("{style}hint:{style:#} {hint}"));
        }
        if error.kind() == Kind::Internal {
            self.tell("This is a fault of sbs itself: please report it with the line above.");
        }
    }

    /// Shows what the client does: the progress of a download, and with -v each request.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Downloaded { bytes, total } => {
                if self.bar.is_finished() {
                    self.bar.reset();
                }
                self.bar.set_message("downloading");
                if let Some(total) = total {
                    self.bar.set_length(*total);
                }
                self.bar.set_position(*bytes);
            }
            Event::Uploaded { bytes, total } => {
                if self.bar.is_finished() {
                    self.bar.reset();
                }
                self.bar.set_message("uploading");
                self.bar.set_length(*total);
                self.bar.set_position(*bytes);
            }
            Event::Cut { bytes, pause } => {
                let pause = seconds(*pause);
                self.note(format_args!("cut after {bytes} bytes; going on in {pause}"));
            }
            Event::Ended { elapsed, method, route, status } => {
                self.bar.finish_and_clear();
                if self.verbosity == Verbosity::Verbose {
                    let status = status.map_or("no answer".to_owned(), |status| status.to_string());
                    self.tell(format_args!("{method} {route}: {status} ({})", seconds(*elapsed)));
                }
            }
            _ => (),
        }
    }

    /// Shows how much of a file was read, until the next thing is printed.
    pub(crate) fn reading<R: io::Read>(&self, file: R, size: u64) -> impl io::Read + use<R> {
        self.bar.set_message("verifying");
        self.bar.set_length(size);
        self.bar.wrap_read(file)
    }

    fn tell(&self, text: impl Display) {
        // If the standard error output is closed there is no one to tell.
        let _closed = self.bar.suspend(|| writeln!(anstream::stderr(), "{text}"));
    }
}

/// Prints what the command line parser has to say: the help, the version or what is wrong.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _closed = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Returns one line of JSON without characters that could deceive a terminal.
fn to_json(mut json: Value) -> String {
    if let Some(object) = json.as_object_mut() {
        object.insert("version".to_owned(), OUTPUT_VERSION.into());
    }
    let mut text = String::new();
    for c in json.to_string().chars() {
        // They stand inside strings only, where JSON knows them by number (RFC 8259, 7).
        if is_deceptive(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

fn written(result: io::Result<()>) -> Result<(), CommandError> {
    result.map_err(|error| {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        let kind = if closed { Kind::Closed } else { Kind::Config };
        CommandError::new(kind, WriteResultError(error))
    })
}

/// The standard output took no more.
#[derive(Debug, Error)]
#[error("cannot write the result")]
struct WriteResultError(#[source] io::Error);

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// The version of the JSON that is printed.
const OUTPUT_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_json_holds_no_character_that_controls_a_terminal() {
        let text = "\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}\tü\n";
        let json = to_json(serde_json::json!({"log": text}));
        assert!(!json.contains(is_deceptive), "{json}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["log"], text);
        assert_eq!(read["version"], 1);
    }
}
