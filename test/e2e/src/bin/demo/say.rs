//! Progress for people: one line per step with the time since the start; colour on a terminal.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    io::{IsTerminal, Write, stdout},
    time::Instant,
};

/// Lines of a daemon's log that are shown when something went wrong.
const LOG_LINES: usize = 25;

#[derive(Debug)]
pub(crate) struct Say {
    began: Instant,
    colour: bool,
}

impl Say {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), colour: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(crate) fn step(&mut self, text: &str) {
        self.line("36", text);
    }

    pub(crate) fn good(&mut self, text: &str) {
        self.line("32", text);
    }

    pub(crate) fn bad(&mut self, text: &str) {
        self.line("31", text);
    }

    pub(crate) fn hint(&self, name: &str, line: &str) {
        println!("           {name:<12} {line}");
    }

    pub(crate) fn table(&self, text: &str) {
        println!("\n{text}");
    }

    pub(crate) fn log(&self, name: &str, log: &str) {
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        println!("\n--- end of ipamd's log on {name} ---\n{}\n---", tail.join("\n"));
    }

    fn line(&self, colour: &str, text: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        if self.colour {
            println!("\u{1b}[2m[{seconds:5.1} s]\u{1b}[0m \u{1b}[{colour}m{text}\u{1b}[0m");
        } else {
            println!("[{seconds:5.1} s] {text}");
        }
        // Whoever watches through a pipe sees it now, too.
        let _ = stdout().flush();
    }
}
