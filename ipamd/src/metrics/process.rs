//! What the system says of this process, by the names that every exporter uses.

use std::time::Duration;

use super::text::{Kind, Page};

/// Bytes of a page of memory and clock ticks of a second: the same on every Linux that runs on EC2.
const PAGE_BYTES: f64 = 4096.0;
const TICKS: f64 = 100.0;

/// Writes what can be read.
pub(super) fn write(page: &mut Page) {
    let Some(stat) = std::fs::read_to_string("/proc/self/stat").ok() else { return };
    // The command's name may contain blanks; it ends with the last parenthesis.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The state is not a number, so field n of proc(5) is at n - 4.
    let field = |n: usize| fields.get(n - 4).copied();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        page.metric("process_cpu_seconds_total", Kind::Counter, "CPU time of the daemon.")
            .sample(&[], (user + system) / TICKS);
    }
    if let Some(resident) = field(24) {
        page.metric("process_resident_memory_bytes", Kind::Gauge, "Memory of the daemon that is in RAM.")
            .sample(&[], resident * PAGE_BYTES);
    }
    if let (Some(begun), Some(booted)) = (field(22), booted()) {
        page.metric("process_start_time_seconds", Kind::Gauge, "When the daemon was started, since 1970.")
            .sample(&[], booted + begun / TICKS);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.metric("process_open_fds", Kind::Gauge, "Open files of the daemon.")
            .count(&[], u64::try_from(open.count()).unwrap_or(u64::MAX));
    }
}

/// When the system was booted, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// How long this process has run.
pub(crate) fn age() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let begun: f64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(uptime - begun / TICKS).ok()
}
