//! System call filters: programs for the kernel's seccomp(2) made of lists of calls.
//! Which calls a process needs is left to the callers.

use crate::sys;
use libc::sock_filter;
use std::io;

/// A call that is allowed, by its number.
pub struct Call {
    number: libc::c_long,
    /// An argument that may not have these bits set.
    refused: Option<(u32, u32)>,
}

impl Call {
    pub const fn any(number: libc::c_long) -> Call {
        Call {
            number,
            refused: None,
        }
    }

    /// Allowed unless the argument at `index` has one of `bits`, of its lower 32, set.
    pub const fn without(number: libc::c_long, index: u32, bits: u32) -> Call {
        Call {
            number,
            refused: Some((index, bits)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in struct seccomp_data; both architectures are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Lets this process, for good, make no other call than `calls`: others fail with ENOSYS,
/// and one by another architecture's convention ends it. Needs NoNewPrivs.
pub fn allow_only(calls: &[Call]) -> io::Result<()> {
    sys::filter_calls(&program(calls))
}

fn program(calls: &[Call]) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCH),
        compare(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    for call in calls {
        let number = call.number as u32;
        match call.refused {
            None => program.extend([
                compare(libc::BPF_JEQ, number, 0, 1),
                give(libc::SECCOMP_RET_ALLOW),
            ]),
            Some((index, bits)) => program.extend([
                compare(libc::BPF_JEQ, number, 0, 4),
                load(ARGUMENTS + 8 * index),
                compare(libc::BPF_JSET, bits, 1, 0),
                give(libc::SECCOMP_RET_ALLOW),
                give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            ]),
        }
    }
    program.push(give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    program
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Compares, and skips `then` instructions if it holds, `otherwise` ones if not.
fn compare(comparison: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | comparison | libc::BPF_K,
        value,
        then,
        otherwise,
    )
}

fn give(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, result, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer to a call, by running the program as it does.
    fn outcome(program: &[sock_filter], arch: u32, number: i64, arguments: [u32; 6]) -> u32 {
        let mut loaded = 0;
        let mut at = 0;
        loop {
            let step = &program[at];
            at += 1;
            let code = u32::from(step.code);
            if code & 7 == libc::BPF_RET {
                return step.k;
            }
            if code & 7 == libc::BPF_LD {
                loaded = match step.k {
                    NUMBER => number as u32,
                    ARCH => arch,
                    offset => arguments[((offset - ARGUMENTS) / 8) as usize],
                };
                continue;
            }
            let holds = match code & 0xf0 {
                libc::BPF_JEQ => loaded == step.k,
                libc::BPF_JSET => loaded & step.k != 0,
                other => panic!("no such comparison: {other}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn only_the_listed_calls_are_allowed() {
        let program = program(&[
            Call::any(libc::SYS_read),
            Call::without(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
            Call::any(libc::SYS_close),
        ]);
        let of = |number, arguments| outcome(&program, ARCHITECTURE, number, arguments);
        let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(of(libc::SYS_read, [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(of(libc::SYS_close, [7; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(of(libc::SYS_execve, [0; 6]), refused);
        assert_eq!(of(libc::SYS_read | 0x4000_0000, [0; 6]), refused);
        assert_eq!(
            of(libc::SYS_mmap, [0, 0, 3, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        let executable = of(libc::SYS_mmap, [0, 0, 7, 0, 0, 0]);
        assert_eq!(executable, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn a_call_by_another_architecture_ends_the_process() {
        let program = program(&[Call::any(libc::SYS_read)]);
        let result = outcome(&program, 0x4000_0003, libc::SYS_read, [0; 6]);
        assert_eq!(result, libc::SECCOMP_RET_KILL_PROCESS);
    }
}
