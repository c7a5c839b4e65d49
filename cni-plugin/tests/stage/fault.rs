//! Kills the plugin at a chosen step, or lets the kernel lack something. The plugin knows nothing of it: the test traces it and stops it
//! at the entry of its n-th system call that can be seen from outside, so no step can be forgotten, and production code pays nothing.

use std::{
    io::{Read, Write},
    process::Child,
};

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

use super::Answer;

// Source: `AF_NETLINK` of linux/socket.h; `NETLINK_NETFILTER` and `MAX_LINKS` of linux/netlink.h.
const NETLINK: u64 = 16;
const NFTABLES: u64 = 12;
const NOBODYS: u64 = 31;

/// How a traced run ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was killed when it was about to make this system call.
    Killed(i64),
    /// It ended by itself before that many steps.
    Ended(Answer),
}

/// Runs `plugin`, which waits for its input, and kills it before its step `nth`, counted from 0.
///
/// With `EVERY_SYSCALL=1` each system call is a step, else only those that can change something outside of the process.
pub fn run_killed(plugin: Child, stdin: &str, nth: usize) -> Outcome {
    let every = std::env::var_os("EVERY_SYSCALL").is_some();
    let leader = Pid::from_raw(i32::try_from(plugin.id()).unwrap());
    let (mut steps, mut killed) = (0, None);
    let answer = traced(plugin, stdin, |thread| {
        if killed.is_none() && (every || is_step(call(thread))) {
            if steps == nth {
                killed = Some(call(thread));
                kill(leader, Signal::SIGKILL).unwrap();
            }
            steps += 1;
        }
    });
    killed.map_or(Outcome::Ended(answer), Outcome::Killed)
}

/// Runs `plugin`, which waits for its input, as on a kernel without nf_tables: there is no netlink socket of that kind.
pub fn run_without_nf_tables(plugin: Child, stdin: &str) -> Answer {
    traced(plugin, stdin, |thread| {
        if call(thread) == libc::SYS_socket {
            mistake_protocol(thread);
        }
    })
}

/// Runs `plugin` and stops it at the entry of each system call of any of its threads.
fn traced(mut plugin: Child, stdin: &str, mut at_entry: impl FnMut(Pid)) -> Answer {
    let leader = Pid::from_raw(i32::try_from(plugin.id()).unwrap());
    ptrace::seize(leader, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL)
        .unwrap();
    ptrace::interrupt(leader).unwrap();
    plugin.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let success = loop {
        // Only what this thread traces: other tests have children too.
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
            WaitStatus::PtraceSyscall(thread) => {
                if is_entry(thread) {
                    at_entry(thread);
                }
                go_on(thread, None);
            }
            WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None),
            WaitStatus::Stopped(thread, signal) => go_on(thread, Some(signal)),
            WaitStatus::Exited(thread, code) if thread == leader => break code == 0,
            WaitStatus::Signaled(thread, ..) if thread == leader => break false,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) | WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    };
    let mut stdout = String::new();
    // Of one that was killed nobody reads it.
    let _ = plugin.stdout.take().unwrap().read_to_string(&mut stdout);
    Answer { success, stdout }
}

/// The socket that is about to be made, when it is one of nf_tables, is of a kind that no kernel has.
#[cfg(target_arch = "x86_64")]
fn mistake_protocol(thread: Pid) {
    let mut registers = ptrace::getregs(thread).unwrap();
    if (registers.rdi, registers.rdx) == (NETLINK, NFTABLES) {
        registers.rdx = NOBODYS;
        ptrace::setregs(thread, registers).unwrap();
    }
}

#[cfg(target_arch = "aarch64")]
fn mistake_protocol(thread: Pid) {
    let mut registers = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(thread).unwrap();
    if (registers.regs[0], registers.regs[2]) == (NETLINK, NFTABLES) {
        registers.regs[2] = NOBODYS;
        ptrace::setregset::<ptrace::regset::NT_PRSTATUS>(thread, registers).unwrap();
    }
}

/// It may be dead by now.
fn go_on(thread: Pid, signal: Option<Signal>) {
    let signal = signal.filter(|signal| *signal != Signal::SIGTRAP);
    assert!(matches!(ptrace::syscall(thread, signal), Ok(()) | Err(Errno::ESRCH)));
}

fn is_entry(thread: Pid) -> bool {
    ptrace::syscall_info(thread).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

#[cfg(target_arch = "x86_64")]
fn call(thread: Pid) -> i64 {
    ptrace::getregs(thread).map_or(-1, |registers| registers.orig_rax.cast_signed())
}

#[cfg(target_arch = "aarch64")]
fn call(thread: Pid) -> i64 {
    ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(thread).map_or(-1, |registers| registers.regs[8].cast_signed())
}

/// System calls that change nothing outside of the process.
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
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_prctl,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
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
    libc::SYS_execve,
    libc::SYS_ioctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// Whether a system call can change what others see. What is not known can.
fn is_step(call: i64) -> bool {
    !INSIDE.contains(&call)
}
