//! What the demo writes. On a terminal a step shows while it runs; elsewhere only its end does.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::Result;

/// Runs a step and shows how long it took. The text that it returns is shown beside it.
pub(crate) fn step<T>(name: &str, run: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    let start = Instant::now();
    let terminal = io::stdout().is_terminal();
    if terminal {
        write(&format!("  … {name}"));
    }
    let result = run();
    let seconds = start.elapsed().as_secs_f32();
    let (mark, note) = match &result {
        Ok((_, note)) => (paint("32", "✔"), note.as_str()),
        Err(_) => (paint("31", "✘"), ""),
    };
    let note = if note.is_empty() { String::new() } else { format!("  {note}") };
    let begin = if terminal { "\r\u{1b}[K" } else { "" };
    write(&format!("{begin}  {mark} {name}  {}\n", paint("2", &format!("{seconds:.1} s{note}"))));
    result.map(|(value, _note)| value)
}

/// Writes a line of what runs, indented and cut to the width of most terminals.
pub(crate) fn detail(line: &str) {
    let line: String = line.chars().filter(|c| !c.is_control()).take(92).collect();
    write(&format!("      {}\n", paint("2", &line)));
}

/// Writes a line.
pub(crate) fn line(text: &str) {
    write(&format!("{text}\n"));
}

/// Writes an error.
pub(crate) fn complain(text: &str) {
    // Nobody can be told that nobody can be told.
    let _written = writeln!(io::stderr(), "error: {text}");
}

fn write(text: &str) {
    let mut output = io::stdout().lock();
    let _written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn paint(code: &str, text: &str) -> String {
    if io::stdout().is_terminal() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
