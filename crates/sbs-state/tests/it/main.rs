//! The state image: its form, and what attackers make of it.

// `cfg(test)` tells clippy that helpers, too, may unwrap.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod collision;
#[cfg(test)]
mod common;
#[cfg(test)]
mod content;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod import;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod known_answer;
#[cfg(test)]
mod testkit;
