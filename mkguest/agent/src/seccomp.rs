//! System call filters: what is to become of each call, compiled by the compiler into a
//! program for the kernel's seccomp(2). Which calls a process needs is left to the callers.

use libc::{c_long, sock_filter};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// ENOSYS, as from a kernel that does not have it: callers that can do without it do.
    Unknown,
    /// EPERM.
    Refused,
    Allowed,
    /// Allowed if the argument has none of these bits, of its lower 32, and else refused.
    Without {
        argument: u32,
        bits: u32,
    },
    /// Allowed if the argument's lower 32 bits are none of these, and else refused.
    Except {
        argument: u32,
        values: &'static [u32],
    },
    /// Allowed if the argument's lower 32 bits are one of these, and else refused.
    Only {
        argument: u32,
        values: &'static [u32],
    },
}

use Verdict::{Allowed, Except, Only, Refused, Unknown, Without};

/// More than the highest number of a call on either architecture.
const NUMBERS: usize = 512;

/// A verdict for each number. Of any other architecture's calls it says nothing: they end
/// the process.
#[derive(Clone, Copy)]
pub struct Filter([Verdict; NUMBERS]);

impl Filter {
    /// Knows no call.
    pub const fn new() -> Filter {
        Filter([Unknown; NUMBERS])
    }

    /// The same filter but for one call.
    pub const fn with(mut self, number: c_long, verdict: Verdict) -> Filter {
        self.0[number as usize] = verdict;
        self
    }

    /// The same filter but for these calls, which are allowed.
    pub const fn allowing(mut self, numbers: &[c_long]) -> Filter {
        let mut at = 0;
        while at < numbers.len() {
            self = self.with(numbers[at], Allowed);
            at += 1;
        }
        self
    }

    /// How many instructions the filter takes.
    pub const fn length(&self) -> usize {
        self.assemble::<0>().length
    }

    /// The filter as a program; N is its `length`.
    pub const fn program<const N: usize>(&self) -> [sock_filter; N] {
        let assembly = self.assemble();
        assert!(assembly.length == N);
        assembly.steps
    }

    const fn assemble<const N: usize>(&self) -> Assembly<N> {
        let mut program = Assembly::new()
            .step(load(ARCH))
            .step(compare(libc::BPF_JEQ, ARCHITECTURE, 1, 0))
            .step(give(libc::SECCOMP_RET_KILL_PROCESS))
            .step(load(NUMBER))
            // -1, which some programs ask with whether seccomp is at work, is no call.
            .step(compare(libc::BPF_JEQ, u32::MAX, 2, 0))
            .step(compare(libc::BPF_JGE, OTHER_CONVENTION, 0, 1))
            .step(give(libc::SECCOMP_RET_KILL_PROCESS));
        // From run to run of numbers with one verdict. All below the run are dealt with, so
        // that one comparison with its end tells whether a number is in it.
        let mut at = 0;
        while at < NUMBERS {
            let verdict = self.0[at];
            at += 1;
            while at < NUMBERS && verdict.is_same_plain(self.0[at]) {
                at += 1;
            }
            program = program.step(compare(libc::BPF_JGE, at as u32, verdict.length(), 0));
            program = verdict.judge(program);
        }
        Unknown.judge(program)
    }
}

impl Verdict {
    const fn is_same_plain(self, other: Verdict) -> bool {
        matches!(
            (self, other),
            (Unknown, Unknown) | (Refused, Refused) | (Allowed, Allowed)
        )
    }

    /// How many instructions `judge` adds.
    const fn length(self) -> u8 {
        match self {
            Unknown | Refused | Allowed => 1,
            Without { .. } => 4,
            Except { values, .. } | Only { values, .. } => values.len() as u8 + 3,
        }
    }

    const fn judge<const N: usize>(self, program: Assembly<N>) -> Assembly<N> {
        let allow = give(libc::SECCOMP_RET_ALLOW);
        let refuse = give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
        match self {
            Unknown => program.step(give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)),
            Refused => program.step(refuse),
            Allowed => program.step(allow),
            Without { argument, bits } => program
                .step(load(ARGUMENTS + 8 * argument))
                .step(compare(libc::BPF_JSET, bits, 1, 0))
                .step(allow)
                .step(refuse),
            Except { argument, values } => program.search(argument, values, allow, refuse),
            Only { argument, values } => program.search(argument, values, refuse, allow),
        }
    }
}

/// A program in the making. With no room it only counts.
struct Assembly<const N: usize> {
    steps: [sock_filter; N],
    length: usize,
}

impl<const N: usize> Assembly<N> {
    const fn new() -> Self {
        Assembly {
            steps: [give(0); N],
            length: 0,
        }
    }

    const fn step(mut self, step: sock_filter) -> Self {
        if N > 0 {
            self.steps[self.length] = step;
        }
        self.length += 1;
        self
    }

    /// Goes to `found` if the argument is one of the values, and else to `missed`.
    const fn search(
        mut self,
        argument: u32,
        values: &[u32],
        missed: sock_filter,
        found: sock_filter,
    ) -> Self {
        self = self.step(load(ARGUMENTS + 8 * argument));
        let mut left = values.len();
        while left > 0 {
            let value = values[values.len() - left];
            self = self.step(compare(libc::BPF_JEQ, value, left as u8, 0));
            left -= 1;
        }
        self.step(missed).step(found)
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Where the numbers of x32 begin, which share the architecture of x86-64.
const OTHER_CONVENTION: u32 = 0x4000_0000;

// Offsets in struct seccomp_data; both architectures are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Compares, and skips `then` instructions if it holds, `otherwise` ones if not.
const fn compare(comparison: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | comparison | libc::BPF_K,
        value,
        then,
        otherwise,
    )
}

const fn give(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, result, 0, 0)
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
pub mod interpreter {
    use super::*;

    pub const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    pub const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    pub const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    pub const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    /// What the kernel would answer to a call, by running the program as it does.
    pub fn outcome(program: &[sock_filter], number: c_long, arguments: [u32; 6]) -> u32 {
        outcome_for(ARCHITECTURE, program, number, arguments)
    }

    pub fn outcome_for(
        arch: u32,
        program: &[sock_filter],
        number: c_long,
        arguments: [u32; 6],
    ) -> u32 {
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
                libc::BPF_JGE => loaded >= step.k,
                libc::BPF_JSET => loaded & step.k != 0,
                other => panic!("no such comparison: {other}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::interpreter::{outcome, outcome_for, ALLOW, ENOSYS, EPERM, KILL};
    use super::*;

    const FILTER: Filter = Filter::new()
        .allowing(&[0, 2, 3, 511])
        .with(4, Refused)
        .with(
            5,
            Without {
                argument: 2,
                bits: 6,
            },
        )
        .with(
            6,
            Except {
                argument: 0,
                values: &[7, 8],
            },
        )
        .with(
            7,
            Only {
                argument: 1,
                values: &[7, 8, 9],
            },
        );
    static PROGRAM: [sock_filter; FILTER.length()] = FILTER.program();

    #[test]
    fn each_number_gets_its_verdict() {
        for number in 0..1000 {
            let expected = match number {
                0 | 2 | 3 | 5 | 6 | 511 => ALLOW,
                4 | 7 => EPERM,
                _ => ENOSYS,
            };
            assert_eq!(outcome(&PROGRAM, number, [0; 6]), expected, "{number}");
        }
    }

    #[test]
    fn a_verdict_may_hang_on_an_argument() {
        let of = |number, at: usize, value| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            outcome(&PROGRAM, number, arguments)
        };
        assert_eq!(of(5, 2, 1 | 8), ALLOW);
        assert_eq!(of(5, 2, 2 | 8), EPERM);
        for value in 0..12 {
            let excepted = [7, 8].contains(&value);
            assert_eq!(of(6, 0, value), if excepted { EPERM } else { ALLOW });
            let listed = [7, 8, 9].contains(&value);
            assert_eq!(of(7, 1, value), if listed { ALLOW } else { EPERM });
        }
    }

    #[test]
    fn a_call_by_another_convention_ends_the_process() {
        assert_eq!(outcome_for(0x4000_0003, &PROGRAM, 0, [0; 6]), KILL);
        for number in [0x4000_0000, 0x4000_0001, 0x7fff_ffff] {
            assert_eq!(outcome(&PROGRAM, number, [0; 6]), KILL);
        }
        assert_eq!(outcome(&PROGRAM, -1, [0; 6]), ENOSYS);
    }
}
