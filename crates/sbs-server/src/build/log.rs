//! The log of one build: a file that only grows, in the original's line format.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_registry::Log;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use zeroize::Zeroizing;

use crate::clock::Clock;

/// A handle on the log of a build; clones write to the same log.
///
/// Everything that the build itself prints stands behind `run: `, which no line of ours has, and
/// cannot begin a line of its own: a build cannot forge what the server says.
#[derive(Clone)]
pub(crate) struct BuildLog(Arc<Mutex<Writer>>);

impl Log for BuildLog {
    fn info(&self, message: &str) {
        Self::info(self, message);
    }

    fn warning(&self, message: &str) {
        Self::warning(self, message);
    }
}

struct Writer {
    file: File,
    clock: Clock,
    masks: Masks,
    /// Bytes of tool output that may still be written.
    room: u64,
    /// The last lines that found no room.
    tail: VecDeque<String>,
    dropped: u64,
}

impl BuildLog {
    /// Opens a log that writes to `file` and takes `max_bytes` of tool output.
    ///
    /// Beyond that the last thousand lines are kept and written, with a mark where the gap is, at
    /// the next line of the server's own.
    pub(crate) fn new(file: File, clock: Clock, masks: Masks, max_bytes: u64) -> Self {
        let tail = VecDeque::new();
        Self(Arc::new(Mutex::new(Writer { file, clock, masks, room: max_bytes, tail, dropped: 0 })))
    }

    /// Writes a line of the server's own.
    pub(crate) fn info(&self, message: &str) {
        self.own("INFO", message);
    }

    /// Writes a warning of the server's own.
    pub(crate) fn warning(&self, message: &str) {
        self.own("WARNING", message);
    }

    /// Writes an error of the server's own.
    pub(crate) fn error(&self, message: &str) {
        self.own("ERROR", message);
    }

    /// Writes a line that a tool printed.
    pub(crate) fn output(&self, line: &[u8]) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = writer.line("INFO", "run: ", &String::from_utf8_lossy(line));
        let bytes = text.len() as u64;
        if bytes <= writer.room && writer.dropped == 0 {
            writer.room -= bytes;
            writer.write(&text);
            return;
        }
        writer.dropped += 1;
        if writer.tail.len() == TAIL_LINES {
            writer.tail.pop_front();
        }
        writer.tail.push_back(text);
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file.sync_data()
    }

    fn own(&self, level: &str, message: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush_tail();
        for part in message.split('\n') {
            let text = writer.line(level, "", part);
            writer.write(&text);
        }
    }
}

impl std::fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuildLog")
    }
}

impl Writer {
    /// Formats a line: time, logger, level, message (`docs/formats/wire.md`, "Build log").
    fn line(&self, level: &str, prefix: &str, message: &str) -> String {
        let time = self.clock.now().format(TIME).unwrap_or_default();
        let message = escape(&self.masks.apply(message));
        format!("{time}  {:<10} {level:<7} {prefix}{message}\n", "root")
    }

    fn flush_tail(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let missing = self.dropped - self.tail.len() as u64;
        let mark =
            format!("the log is over its limit; {missing} lines of output are not kept here");
        let text = self.line("WARNING", "", &mark);
        self.write(&text);
        for line in std::mem::take(&mut self.tail) {
            self.write(&line);
        }
        // What comes later is kept as a tail again.
        self.dropped = 0;
        self.room = 0;
    }

    fn write(&mut self, text: &str) {
        // A log that cannot be written (a full disk) must not end the build that it tells of; the
        // record's step, which needs the disk too, will.
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            tracing::warn!(%error, "cannot write the build log");
        }
    }
}

/// Values that must not stand in a log: the second wall behind types that do not print.
#[derive(Default)]
pub(crate) struct Masks(Vec<(Zeroizing<String>, &'static str)>);

impl Masks {
    /// Adds a value that is shown as `shown`, also in its base64 and URL-encoded forms.
    ///
    /// A value under four characters would mask half the log and is left alone.
    pub(crate) fn add(&mut self, value: &str, shown: &'static str) {
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= 4);
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with("-----")).collect();
        let encoded = STANDARD.encode(value);
        let url = url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>();
        let forms = lines.into_iter().map(str::to_owned);
        let forms = forms.chain([encoded.trim_end_matches('=').to_owned(), url]);
        self.0.extend(forms.filter(|form| form.len() >= 4).map(|form| (form.into(), shown)));
        // A value that is part of another must not break it up first.
        self.0.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
    }

    /// Returns the text with every value masked.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (form, shown) in &self.0 {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), shown);
            }
        }
        text
    }
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masks")
    }
}

/// Escapes what could move a terminal's cursor or reorder text: controls but the tab, and
/// bidirectional marks.
fn escape(text: &str) -> String {
    let harmless = |c: char| c == '\t' || !(c.is_control() || is_bidirectional(c));
    if text.chars().all(harmless) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_unicode());
        }
        escaped
    })
}

fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");
const TAIL_LINES: usize = 1000;

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    fn log(masks: Masks, max_bytes: u64) -> (BuildLog, File) {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        (BuildLog::new(file, Clock::fixed(1_700_000_000), masks, max_bytes), reader)
    }

    fn text(mut reader: File) -> String {
        reader.rewind().unwrap();
        io::read_to_string(reader).unwrap()
    }

    #[test]
    fn lines_have_the_originals_form() {
        let (log, reader) = log(Masks::default(), 1000);
        log.info("starting a build");
        log.warning("careful");
        log.output(b"Step 1/2");
        assert_eq!(
            text(reader),
            "2023-11-14 22:13:20,000  root       INFO    starting a build\n\
             2023-11-14 22:13:20,000  root       WARNING careful\n\
             2023-11-14 22:13:20,000  root       INFO    run: Step 1/2\n"
        );
    }

    #[test]
    fn b10_known_secrets_are_masked_in_every_form() {
        let mut masks = Masks::default();
        masks.add("pa ss/word", "<PASSWORD>");
        masks.add("-----BEGIN KEY-----\nAAAABBBBCCCC\n-----END KEY-----\n", "<KEY>");
        let (log, reader) = log(masks, 10_000);
        log.output(b"plain pa ss/word, url pa+ss%2Fword, base64 cGEgc3Mvd29yZA==");
        log.info("key AAAABBBBCCCC");
        let text = text(reader);
        for secret in ["pa ss/word", "pa+ss%2Fword", "cGEgc3Mvd29yZA", "AAAABBBBCCCC"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(text.contains("plain <PASSWORD>, url <PASSWORD>"), "{text}");
    }

    #[test]
    fn a_build_cannot_forge_a_line_of_the_server() {
        let (log, reader) = log(Masks::default(), 10_000);
        log.output("x\n2026 root INFO success\x1b[2K\u{202e}\u{9b}1A".as_bytes());
        let text = text(reader);
        assert_eq!(text.lines().count(), 1);
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn b7_output_over_the_limit_keeps_its_head_and_its_tail() {
        let (log, reader) = log(Masks::default(), 1000);
        for i in 0..5000 {
            log.output(format!("line {i}").as_bytes());
        }
        log.info("done");
        let text = text(reader);
        assert!(text.contains("run: line 0\n") && text.contains("run: line 4999\n"));
        assert!(!text.contains("run: line 2500\n"));
        assert!(text.contains("over its limit"), "{text}");
        assert!(text.ends_with("INFO    done\n"));
        assert!(text.len() < 80_000, "{}", text.len());
    }
}
