//! What the client sends and what it makes of the answers, against a server made for the test.

#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod double;
#[cfg(test)]
mod downloads;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod state;
#[cfg(test)]
mod trust;
