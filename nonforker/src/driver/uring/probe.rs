//! Whether this kernel's io_uring has what the driver needs, and if not, why, for a person.
//!
//! The kernel is asked what it can do, and never which version it is: distributions carry features
//! back, and sandboxes take them away. The setup itself asks for `DEFER_TASKRUN`. It came with
//! Linux 6.1, and a kernel that has it has rings of buffers and receives that wait first (5.19),
//! for which there is no flag. It is also entered once: a filter that forbids only this would else end
//! the server with its first client.

use std::{
    fs,
    io::{self, ErrorKind},
};

use io_uring::{
    IoUring, Probe, opcode,
    types::{SubmitArgs, Timespec},
};
use rustix::io::Errno;

/// What may be set to forbid io_uring: 1 to the unprivileged, 2 to everybody.
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

const TOO_OLD: &str = "the kernel lacks what is needed of it, which Linux 6.1 has";

/// Checks what a ring was not asked for when it was made.
pub(super) fn check(ring: &IoUring) -> io::Result<()> {
    let params = ring.params();
    let features = [
        ("waiting with a timeout", params.is_feature_ext_arg()),
        ("completions that are not dropped", params.is_feature_nodrop()),
        ("operations that wait by themselves", params.is_feature_fast_poll()),
        ("success without completion", params.is_feature_skip_cqe_on_success()),
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(explain)?;
    let operations = [
        ("receive", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel2::CODE),
    ]
    .map(|(name, code)| (name, probe.is_supported(code)));
    for (name, has) in features.into_iter().chain(operations) {
        if !has {
            let why = format!("the kernel's io_uring does not have this: {name}");
            return Err(io::Error::new(ErrorKind::Unsupported, why));
        }
    }
    enter(ring)
}

/// Enters once, as every turn does: a filter of system calls may forbid only that.
fn enter(ring: &IoUring) -> io::Result<()> {
    let moment = Timespec::new().nsec(1);
    match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&moment)) {
        Err(error) if !matches!(Errno::from_io_error(&error), Some(Errno::TIME | Errno::INTR)) => {
            Err(explain(error))
        }
        _ => Ok(()),
    }
}

/// Says why a ring could not be made, where that can be known.
pub(super) fn explain(error: io::Error) -> io::Error {
    let why = match Errno::from_io_error(&error) {
        Some(Errno::NOSYS) => "the kernel has none, or a filter of system calls hides it".into(),
        Some(Errno::PERM | Errno::ACCESS) => forbidden(fs::read_to_string(DISABLED).ok()),
        Some(Errno::NOMEM) => "the limit of locked memory is too low (see ulimit -l)".into(),
        Some(Errno::INVAL) => TOO_OLD.into(),
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

fn forbidden(setting: Option<String>) -> String {
    match setting.as_deref().map(str::trim) {
        None | Some("" | "0") => "a filter of system calls or another policy forbids it".into(),
        Some(value) => format!("it is forbidden: kernel.io_uring_disabled is {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_given_where_it_is_known() {
        let explained = |errno: Errno| explain(io::Error::from(errno)).to_string();
        assert!(explained(Errno::NOSYS).contains("the kernel has none"));
        assert!(explained(Errno::NOMEM).contains("ulimit -l"));
        assert!(explained(Errno::INVAL).contains("6.1"));
        assert_eq!(explained(Errno::MFILE), io::Error::from(Errno::MFILE).to_string());
        assert!(forbidden(Some("2\n".into())).ends_with("io_uring_disabled is 2"));
        assert!(forbidden(Some("0\n".into())).contains("filter"));
        assert!(forbidden(None).contains("filter"));
    }
}
