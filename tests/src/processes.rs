//! What runs on this machine, read from `/proc`.

use std::fs;
use std::path::Path;

use anyhow::Result;

/// Returns the command lines of the processes that have `word` among their arguments.
pub fn with_argument(word: &str) -> Result<Vec<String>> {
    let mut found = all()?;
    found.retain(|process| process.line.split('\0').any(|argument| argument == word));
    Ok(found.into_iter().map(|process| process.line.replace('\0', " ")).collect())
}

/// Returns the command lines of the processes that work below `directory`, or name it.
pub fn of_directory(directory: &Path) -> Result<Vec<String>> {
    let mut found = all()?;
    let name = directory.to_string_lossy().into_owned();
    found.retain(|process| process.line.contains(&name) || process.places.contains(&name));
    Ok(found.into_iter().map(|process| process.line.replace('\0', " ")).collect())
}

struct Process {
    /// The arguments, each ended by a NUL.
    line: String,
    /// The working directory and the root.
    places: String,
}

fn all() -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process that ends meanwhile is no fault.
        let Ok(line) = fs::read(path.join("cmdline")) else { continue };
        let link = |name: &str| fs::read_link(path.join(name)).unwrap_or_default();
        let places = format!("{} {}", link("cwd").display(), link("root").display());
        processes.push(Process { line: String::from_utf8_lossy(&line).into_owned(), places });
    }
    Ok(processes)
}
