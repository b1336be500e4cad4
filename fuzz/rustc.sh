#!/bin/sh
# Stands in for rustc where cargo builds a crate of this workspace for fuzzing: cargo puts the real
# one in front (RUSTC_WORKSPACE_WRAPPER), and keeps what comes out apart from what a usual build makes.
# What the crates depend on is built as ever, and shared.
#
# cargo does not see a change of these flags: after one, `cargo clean --package sbs-fuzz` and so on.

# Tell libFuzzer which code an input reached. They are options of LLVM's passes, which the stable
# compiler hands on; a sanitizer needs nightly, and without `unsafe` finds little.
# Optimised, or a fuzzer is slow; with the checks of a debug build, or it finds little.
exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Copt-level=3 -Cdebug-assertions=on -Coverflow-checks=on
