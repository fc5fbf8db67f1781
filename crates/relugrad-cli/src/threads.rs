//! Threads that compute.

use std::hint::black_box;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::anyhow;
use clap::{Args, value_parser};

use crate::failure::Failure;

/// How many there are to be.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ThreadOption {
    /// Threads; 0 uses all processors. The results do not depend on it
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u16).range(0..=1024))]
    threads: u16,
}

impl ThreadOption {
    /// Starts them.
    pub(crate) fn start(self) -> Result<Threads, Failure> {
        Threads::start(self.threads)
    }
}

/// Bytes that a thread needs beside its stack, far more than it takes: the standard library aborts
/// the program where a thread that has been started finds no room to handle its signals.
const BESIDE: usize = 1 << 20;

/// Stack of a thread that only says something.
const SMALL_STACK: usize = 256 << 10;

/// Starts a thread that only says something.
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    start(thread::Builder::new().stack_size(SMALL_STACK), work)
}

fn spawn(thread: rayon::ThreadBuilder) -> io::Result<()> {
    start(thread::Builder::new(), || thread.run()).map(drop)
}

/// Starts a thread if there is room for all of it, and waits until it has taken that.
fn start(
    builder: thread::Builder,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(BESIDE).map_err(io::Error::other)?;
    black_box(&mut room);
    let (begun, begins) = mpsc::channel();
    let work = move || {
        drop(begun);
        run();
    };
    let thread = builder.spawn(work)?;
    drop(room);
    // Nothing is sent: the thread's end of the channel is closed once it runs.
    let _: Result<(), mpsc::RecvError> = begins.recv();
    Ok(thread)
}

/// The threads of the whole program. A command starts them first: whatever needs threads later
/// finds these, and need not start its own, which could only panic where there are none.
pub(crate) struct Threads(());

impl Threads {
    /// Starts so many; 0 for one on each processor.
    pub(crate) fn start(number: u16) -> Result<Threads, Failure> {
        let started = rayon::ThreadPoolBuilder::new()
            .num_threads(number.into())
            .spawn_handler(spawn)
            .build_global();
        let threads = match number {
            0 => "a thread on each processor".to_owned(),
            number => format!("{number} threads"),
        };
        match started {
            Ok(()) => Ok(Threads(())),
            Err(error) => Err(Failure::Failed(anyhow!(
                "cannot start {threads} ({error}); ask for fewer by --threads"
            ))),
        }
    }

    /// Runs `f` on one of them, where the others are at hand.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| f())
    }
}
