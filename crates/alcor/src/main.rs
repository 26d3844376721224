//! The `alcor` binary (being built).
fn main() {}
