//! What commands print: data for people and programs, on standard output. Not here: what is logged.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
};

use anyhow::Context as _;
use tabled::{builder::Builder, settings::Style};

/// Prints a line.
///
/// # Errors
/// When it cannot be written. Whoever has closed the other end of a pipe wants no more: that is none.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output takes no more"),
    }
}

/// Prints a value for programs.
///
/// # Errors
/// As [`line`].
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints a table for people.
///
/// # Errors
/// As [`line`].
pub(crate) fn table(table: Builder) -> anyhow::Result<()> {
    line(table.build().with(Style::sharp()))
}
