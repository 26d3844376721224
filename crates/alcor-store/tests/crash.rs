//! Killed at any point: every answered write is there, and none is half there.
//!
//! The test starts itself again as a child that writes under load and prints what was answered, and kills it with
//! SIGKILL after a number of answers that differs from round to round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use alcor_model::Revision;
use alcor_store::{
    Shard, ShardOptions, SqliteEngine, State as _,
    testing::{Rows, named, number_of, numbered},
};

const DATABASE: &str = "ALCOR_STORE_CRASH_DATABASE";
const TASKS: u32 = 6;
/// Rows of one command; all of them carry the command's number.
const ROWS: u32 = 5;
const ROUNDS: usize = 25;

fn row_name(task: u32, row: u32) -> String {
    format!("task{task}-row{row}")
}

/// A command of this number deletes the rows instead of writing them.
fn deletes(number: u32) -> bool {
    number % 5 == 4
}

fn open(path: &Path) -> Shard<Rows> {
    Shard::open(
        Box::new(SqliteEngine::open(path).unwrap()),
        ShardOptions::default(),
    )
    .unwrap()
}

/// The child: does nothing unless the parent set the variable.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(DATABASE) else {
        return;
    };
    let shard = open(Path::new(&path));
    let first = std::env::var("ALCOR_STORE_CRASH_FIRST").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| tokio::spawn(write_for_ever(shard.clone(), task, first)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn write_for_ever(shard: Shard<Rows>, task: u32, first: u32) {
    for number in first.. {
        shard
            .write(move |tx| {
                for row in 0..ROWS {
                    let name = row_name(task, row);
                    if deletes(number) {
                        tx.delete(named(&name));
                    } else {
                        tx.put(numbered(&name, number));
                    }
                }
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "answered {task} {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Runs a child until it answered `answers` commands, kills it; gives the last number answered to each task.
fn run_and_kill(path: &Path, first: u32, answers: usize) -> HashMap<u32, u32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
        .env(DATABASE, path)
        .env("ALCOR_STORE_CRASH_FIRST", first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = HashMap::new();
    let mut note = |line: &str| {
        // The harness writes before the first answer, on the same line.
        let Some(at) = line.find("answered ") else {
            return false;
        };
        let mut words = line[at..].split(' ').skip(1).map(|word| word.parse::<u32>());
        let (Some(Ok(task)), Some(Ok(number))) = (words.next(), words.next()) else {
            return false;
        };
        answered.insert(task, number);
        true
    };
    let mut count = 0;
    while count < answers {
        let line = lines.next().expect("the child ended by itself").unwrap();
        count += usize::from(note(&line));
    }
    child.kill().unwrap();
    // What is in the pipe was answered too. The last line may be cut.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.pop();
    rest.iter().for_each(|line| {
        note(line);
    });
    child.wait().unwrap();
    answered
}

/// The number that all rows of a task carry, or none when all are gone.
fn number_of_task(rows: &Rows, task: u32) -> Option<u32> {
    let numbers: Vec<_> = (0..ROWS)
        .map(|row| {
            rows.get(&named(&row_name(task, row)))
                .and_then(|row| number_of(&row))
        })
        .collect();
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "task {task}: half a command is there: {numbers:?}"
    );
    numbers[0]
}

#[test]
fn every_answered_write_survives_sigkill_and_none_is_half_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.sqlite");
    let mut first = 0;
    for round in 0..ROUNDS {
        let answers = 1 + (round * 37) % 160;
        let answered = run_and_kill(&path, first, answers);
        let shard = open(&path);
        let snapshot = shard.snapshot();
        for task in 0..TASKS {
            let Some(&last) = answered.get(&task) else {
                number_of_task(&snapshot.state, task);
                continue;
            };
            let there = number_of_task(&snapshot.state, task);
            let allowed = [last, last + 1, last + 2].map(|n| (!deletes(n)).then_some(n));
            // The last line read may have been cut, so up to two commands may be beyond it.
            assert!(
                allowed.contains(&there),
                "round {round}, task {task}: {last} was answered, {there:?} is there"
            );
        }
        // The durable feed leads to the same state.
        let replayed = replay(&shard);
        if let Some(replayed) = replayed {
            assert_eq!(replayed, snapshot.state, "round {round}");
        }
        first = answered.values().max().map_or(first, |last| last + 3);
    }
}

/// The state that the feed leads to from nothing, when it reaches back that far.
fn replay(shard: &Shard<Rows>) -> Option<Rows> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut state = Rows::default();
        let mut reader = shard.subscribe(Revision::ZERO);
        while reader.revision() < shard.snapshot().revision {
            for change in reader.next().await?.ok()?.changes {
                match change {
                    alcor_model::Change::Put(row) => {
                        state.put(row);
                    }
                    alcor_model::Change::Delete { key, .. } => {
                        state.remove(&key);
                    }
                }
            }
        }
        Some(state)
    })
}
