//! The end-to-end tests: one binary, one module for each claim.

mod admin;
mod architecture;
mod buckets;
mod certificates;
mod clean;
mod cli;
mod conformance;
mod downloads;
mod failures;
mod first_run;
mod hardening;
mod identity;
mod kill;
mod mtls;
mod parts;
mod registration;
mod secrets;
mod signatures;
mod state;
mod state_cli;
mod swaps;
mod threats;
mod trust;
mod uploads;
mod whole_path;
mod wire;
