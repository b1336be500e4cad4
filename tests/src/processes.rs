//! What runs on this machine, read from `/proc`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use anyhow::Result;

use crate::wait_until;

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

/// A process as `/proc` showed it to a [`Watch`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Seen {
    /// The variables, each ended by a NUL.
    pub environment: Vec<u8>,
    /// The arguments, each ended by a NUL.
    pub line: Vec<u8>,
}

/// Looks at all processes of this machine, again and again, until it is ended.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<BTreeSet<Seen>>>,
}

impl Watch {
    /// Starts to look.
    pub fn start() -> Self {
        let (ended, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (end, count) = (Arc::clone(&ended), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                look(&mut seen)?;
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
            Ok(seen)
        });
        Self { ended, rounds, thread }
    }

    /// Waits until all processes that run now have been looked at.
    pub fn look_again(&self) -> Result<()> {
        // The round that is under way may be past some of them.
        let enough = self.rounds.load(Ordering::Relaxed) + 2;
        wait_until("a look at all processes", Duration::from_mins(1), || {
            Ok((self.rounds.load(Ordering::Relaxed) >= enough).then_some(()))
        })
    }

    /// Looks no more, and returns what was seen, each once.
    pub fn end(self) -> Result<BTreeSet<Seen>> {
        self.ended.store(true, Ordering::Relaxed);
        let seen = self.thread.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        Ok(seen?)
    }
}

fn look(seen: &mut BTreeSet<Seen>) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |name: &str| fs::read(path.join(name)).unwrap_or_default();
        let line = read("cmdline");
        let environment = read("environ");
        // A process that became another program meanwhile, or ended, would be seen as what it never
        // was.
        if !line.is_empty() && line == read("cmdline") {
            seen.insert(Seen { environment, line });
        }
    }
    Ok(())
}
