//! What a command does when nobody takes what it prints.

use std::{
    fs::File,
    process::{Command, Stdio},
};

fn print_config() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alcor"));
    command.arg("--print-config").stderr(Stdio::piped());
    command
}

#[test]
fn a_pipe_that_is_closed_wants_no_more() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = print_config().stdout(writer).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_full_disk_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = print_config().stdout(full).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard output takes no more"), "{said}");
}
