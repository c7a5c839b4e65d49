//! Kills a running daemon or command before a chosen one of its system calls. It knows nothing of it: all its threads are traced, so
//! no step can be forgotten, and production code pays nothing.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::BTreeSet, sync::mpsc, thread, time::Duration};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::oneshot;

/// A daemon in which nothing happens for so long has finished what it was asked for.
const QUIET: Duration = Duration::from_millis(300);
/// How often the kernel is asked for the next stop of a thread.
const GLANCE: Duration = Duration::from_millis(1);

/// A system call and the file it is about, as `pwrite64 (18) ipamd.db-wal`.
pub(crate) type Step = String;

/// A daemon that is being watched, step by step.
pub(crate) struct Watch {
    over: mpsc::Sender<()>,
    /// The step before which it was killed. None: it had finished before that many steps.
    pub(crate) killed: oneshot::Receiver<Option<Step>>,
}

impl Watch {
    /// Kills the daemon before its step `nth`, counted from 0 and from now. Returns when all its threads are watched.
    pub(crate) async fn begin(pid: u32, nth: usize) -> Self {
        Self::seize(pid, nth, false).await
    }

    /// The same for a command, which ends by itself: then it was not killed.
    pub(crate) async fn command(pid: u32, nth: usize) -> Option<Step> {
        let watch = Self::seize(pid, nth, true).await;
        let (_over, killed) = (watch.over, watch.killed);
        killed.await.expect("the command is watched to the end")
    }

    async fn seize(pid: u32, nth: usize, may_end: bool) -> Self {
        let (over, until_over) = mpsc::channel();
        let (tell, killed) = oneshot::channel();
        let (ready, begun) = oneshot::channel();
        // Only the thread that traces may ask, and what it traces goes free when it ends.
        thread::spawn(move || {
            let mut tracer = Tracer::seize(Pid::from_raw(i32::try_from(pid).unwrap()), may_end);
            let _ = ready.send(());
            let _ = tell.send(tracer.run(nth, &until_over));
        });
        begun.await.expect("the daemon can be traced");
        Self { over, killed }
    }

    /// Nothing more will be asked of the daemon. Returns once it is quiet, or was killed in what it did afterwards.
    pub(crate) async fn finish(self) -> Option<Step> {
        let _ = self.over.send(());
        self.killed.await.expect("the daemon is watched to the end")
    }
}

struct Tracer {
    leader: Pid,
    threads: BTreeSet<Pid>,
    may_end: bool,
}

impl Tracer {
    fn seize(leader: Pid, may_end: bool) -> Self {
        let mut tracer = Self { leader, threads: BTreeSet::new(), may_end };
        // A thread that comes while we look is either listed the next time or made by one that is traced already.
        while tracer.seize_new() {}
        tracer
    }

    fn seize_new(&mut self) -> bool {
        let listed = std::fs::read_dir(format!("/proc/{}/task", self.leader)).expect("the daemon runs");
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = self.threads.len();
        for thread in names.map(|name| Pid::from_raw(name.parse().unwrap())).collect::<Vec<_>>() {
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEEXIT;
            if self.threads.insert(thread) {
                match ptrace::seize(thread, options) {
                    Ok(()) => ptrace::interrupt(thread).unwrap(),
                    // Its maker was traced already, so it is too; or it has ended.
                    Err(Errno::EPERM | Errno::ESRCH) => {}
                    Err(errno) => panic!("{thread}: {errno}"),
                }
            }
        }
        self.threads.len() > known
    }

    fn run(&mut self, nth: usize, until_over: &mpsc::Receiver<()>) -> Option<Step> {
        let (mut steps, mut over, mut quiet) = (0, false, Duration::ZERO);
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::PtraceSyscall(thread) => {
                    if let Some(step) = step(thread) {
                        quiet = Duration::ZERO;
                        if steps == nth {
                            // Every thread is let go by our end, and none gets any further.
                            kill(self.leader, Signal::SIGKILL).unwrap();
                            return Some(step);
                        }
                        steps += 1;
                    }
                    go_on(thread, None);
                }
                // Let go by our end it ends, and its parent hears how.
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_EXIT)
                    if thread == self.leader && self.may_end =>
                {
                    return None;
                }
                WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None),
                WaitStatus::Stopped(thread, signal) => go_on(thread, Some(signal)),
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                    assert_ne!(thread, self.leader, "the daemon ended by itself");
                }
                WaitStatus::Continued(_) => {}
                WaitStatus::StillAlive => {
                    over |= until_over.recv_timeout(GLANCE).is_ok();
                    quiet += GLANCE;
                    if over && quiet >= QUIET {
                        return None;
                    }
                }
            }
        }
    }
}

/// It may be dead by now.
fn go_on(thread: Pid, signal: Option<Signal>) {
    let signal = signal.filter(|signal| *signal != Signal::SIGTRAP);
    assert!(matches!(ptrace::syscall(thread, signal), Ok(()) | Err(Errno::ESRCH)));
}

/// The system call that a thread is about to make, if others could see what it does.
fn step(thread: Pid) -> Option<Step> {
    ptrace::syscall_info(thread).ok().filter(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)?;
    let (number, first) = call(thread)?;
    if INSIDE.contains(&number) {
        return None;
    }
    let file = std::fs::read_link(format!("/proc/{thread}/fd/{first}")).unwrap_or_default();
    let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // One thread wakes another, or a line is logged.
    if file == "anon_inode:[eventfd]" || file == "ipamd.log" {
        return None;
    }
    let name = NAMES.iter().find(|(known, _)| *known == number).map_or("?", |(_, name)| name);
    // As `socket:[4711]`.
    Some(format!("{name} ({number}) {}", file.split(':').next().unwrap_or_default()))
}

/// Number and first argument of the system call.
#[cfg(target_arch = "x86_64")]
fn call(thread: Pid) -> Option<(i64, u64)> {
    ptrace::getregs(thread).ok().map(|registers| (registers.orig_rax.cast_signed(), registers.rdi))
}

#[cfg(target_arch = "aarch64")]
fn call(thread: Pid) -> Option<(i64, u64)> {
    let registers = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(thread).ok()?;
    Some((registers.regs[8].cast_signed(), registers.regs[0]))
}

/// For people.
#[rustfmt::skip]
const NAMES: &[(i64, &str)] = &[
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_inotify_add_watch, "inotify_add_watch"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
];

/// System calls that change nothing outside of the process. What is not known may.
#[rustfmt::skip]
const INSIDE: &[i64] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readlinkat,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    // Also the locks of SQLite, which end with the process.
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_prctl,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_settime,
    libc::SYS_ppoll,
    libc::SYS_socket,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_ioctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
];
