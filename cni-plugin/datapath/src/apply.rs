//! Carries plans out, and takes them back when one step fails.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::{
    ops::Op,
    route,
    socket::{NetlinkSocket, Refusal},
};

/// Messages in one send: their answers must fit into the socket's receive buffer (about 200 do).
const BATCH: usize = 64;

/// Why a plan was not carried out. What had been done of it was taken back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused a step.
    #[error("cannot {op}")]
    Refused {
        /// The step.
        op: Op,
        /// Why.
        source: Refusal,
    },
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
}

/// What it means that something to add is there already, or something to remove is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Already {
    /// That the step is done.
    Fine,
    /// That somebody else's work is in the way.
    Refused,
}

/// Carries out `ops` in order, over a new socket in the namespace of this thread.
///
/// Returns those that changed something.
///
/// # Errors
/// [`ApplyError`]; what had been done was taken back.
pub fn apply(ops: &[Op], already: Already) -> Result<Vec<Op>, ApplyError> {
    apply_on(&mut NetlinkSocket::open(NETLINK_ROUTE)?, ops, already)
}

pub(crate) fn apply_on(socket: &mut NetlinkSocket, ops: &[Op], already: Already) -> Result<Vec<Op>, ApplyError> {
    let mut done = Vec::with_capacity(ops.len());
    for batch in ops.chunks(BATCH) {
        let outcome = send(socket, batch, already, &mut done);
        if let Err(error) = outcome {
            undo(socket, &done);
            return Err(error);
        }
    }
    Ok(done)
}

/// Takes `done` back, last first; goes on past what cannot be taken back.
pub(crate) fn undo(socket: &mut NetlinkSocket, done: &[Op]) {
    let back: Vec<_> = done.iter().rev().map(|op| route::op_message(op.inverse())).collect();
    for batch in back.chunks(BATCH) {
        // The error that led here is the one to report.
        let _ = socket.exchange(batch);
    }
}

/// The kernel goes on after a refused message, so that steps behind it may be done as well.
fn send(socket: &mut NetlinkSocket, ops: &[Op], already: Already, done: &mut Vec<Op>) -> Result<(), ApplyError> {
    let messages: Vec<_> = ops.iter().copied().map(route::op_message).collect();
    let mut first_error = None;
    for (op, reply) in ops.iter().zip(socket.exchange(&messages)?) {
        match reply.result {
            Ok(()) => done.push(*op),
            Err(refusal) if already == Already::Fine && is_already(*op, refusal.errno) => {}
            Err(source) => first_error = first_error.or(Some(ApplyError::Refused { op: *op, source })),
        }
    }
    first_error.map_or(Ok(()), Err)
}

pub(crate) fn is_already(op: Op, errno: Errno) -> bool {
    match op {
        Op::Add(_) => errno == Errno::EEXIST,
        Op::Remove(_) => matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EADDRNOTAVAIL),
        Op::Set { .. } => false,
    }
}
