//! The built binary, run in directories of its own.

#[cfg(test)]
mod basics;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod compatibility;
#[cfg(test)]
mod contact;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod images;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod migrate;
#[cfg(test)]
mod originals;
#[cfg(test)]
mod own_files;
#[cfg(test)]
mod place;
#[cfg(test)]
mod prepare;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod server;
#[cfg(test)]
mod state;
#[cfg(test)]
mod trust;
