//! The tiers of system calls that a service or check may be given: which call belongs to
//! which. How a filter judges is left to `seccomp`; docs/confinement.md says the same to users.

use crate::seccomp::Filter;
use crate::seccomp::Verdict::{self, Allowed, Except, Only, Refused, Without};
use libc::{c_long, sock_filter};
use serde::Deserialize;

/// How much of the kernel a command may use; each includes those before it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Essential,
    Minimal,
    #[default]
    Standard,
    Network,
    Unrestricted,
}

impl Tier {
    /// The filter as a program for the kernel; `Unrestricted` has none.
    pub fn program(self) -> Option<&'static [sock_filter]> {
        match self {
            Tier::Essential => Some(&ESSENTIAL_PROGRAM),
            Tier::Minimal => Some(&MINIMAL_PROGRAM),
            Tier::Standard => Some(&STANDARD_PROGRAM),
            Tier::Network => Some(&NETWORK_PROGRAM),
            Tier::Unrestricted => None,
        }
    }
}

static ESSENTIAL_PROGRAM: [sock_filter; ESSENTIAL_FILTER.length()] = ESSENTIAL_FILTER.program();
static MINIMAL_PROGRAM: [sock_filter; MINIMAL_FILTER.length()] = MINIMAL_FILTER.program();
static STANDARD_PROGRAM: [sock_filter; STANDARD_FILTER.length()] = STANDARD_FILTER.program();
static NETWORK_PROGRAM: [sock_filter; NETWORK_FILTER.length()] = NETWORK_FILTER.program();

/// Knows every call of the tables and gives none.
const REFUSING: Filter = with_all(
    with_all(
        with_all(
            with_all(Filter::new(), ESSENTIAL, Refused),
            MINIMAL,
            Refused,
        ),
        STANDARD,
        Refused,
    ),
    NEVER,
    Refused,
);

const ESSENTIAL_FILTER: Filter = with_all(REFUSING, ESSENTIAL, Allowed)
    // CLONE_NEWTIME is not among them: its bit is a signal's to clone, and clone3 is unknown.
    .with(
        libc::SYS_clone,
        Without {
            argument: 0,
            bits: (libc::CLONE_NEWNS
                | libc::CLONE_NEWCGROUP
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUSER
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWNET) as u32,
        },
    )
    // Both put words into the mouth of whoever else uses the terminal.
    .with(
        libc::SYS_ioctl,
        Except {
            argument: 1,
            values: &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32],
        },
    );

const MINIMAL_FILTER: Filter = of_families(
    with_all(ESSENTIAL_FILTER, MINIMAL, Allowed),
    Only {
        argument: 0,
        values: &[libc::AF_UNIX as u32],
    },
);

const STANDARD_FILTER: Filter = of_families(
    with_all(MINIMAL_FILTER, STANDARD, Allowed),
    Only {
        argument: 0,
        values: &[
            libc::AF_UNIX as u32,
            libc::AF_INET as u32,
            libc::AF_INET6 as u32,
            libc::AF_NETLINK as u32,
        ],
    },
)
// PER_LINUX, which every process has, and the question which one it has.
.with(
    libc::SYS_personality,
    Only {
        argument: 0,
        values: &[0, u32::MAX],
    },
);

const NETWORK_FILTER: Filter = of_families(
    STANDARD_FILTER,
    Except {
        argument: 0,
        values: &[libc::AF_VSOCK as u32],
    },
);

const fn with_all(mut filter: Filter, groups: [&[Call]; 2], verdict: Verdict) -> Filter {
    let mut group = 0;
    while group < groups.len() {
        let mut at = 0;
        while at < groups[group].len() {
            filter = filter.with(groups[group][at].1, verdict);
            at += 1;
        }
        group += 1;
    }
    filter
}

const fn of_families(filter: Filter, verdict: Verdict) -> Filter {
    filter
        .with(libc::SYS_socket, verdict)
        .with(libc::SYS_socketpair, verdict)
}

/// A call's name and number.
type Call = (&'static str, c_long);

macro_rules! calls {
    ($($call:ident)*) => {
        &[$((stringify!($call), numbers::$call)),*]
    };
}

/// Calls that x86-64 has and younger architectures do without.
macro_rules! x86_calls {
    ($($call:ident)*) => {{
        #[cfg(target_arch = "x86_64")]
        const CALLS: &[Call] = calls! { $($call)* };
        #[cfg(not(target_arch = "x86_64"))]
        const CALLS: &[Call] = &[];
        CALLS
    }};
}

/// What a shell and a program need that computes, and reads and writes files that it opens.
const ESSENTIAL: [&[Call]; 2] = [
    calls! {
        // Files
        SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_read SYS_write SYS_readv SYS_writev
        SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_lseek
        SYS_newfstatat SYS_fstat SYS_statx SYS_faccessat SYS_faccessat2 SYS_readlinkat
        SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_dup SYS_dup3 SYS_fcntl SYS_pipe2
        SYS_ioctl SYS_statfs SYS_fstatfs SYS_umask SYS_fadvise64
        // Memory
        SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_brk SYS_msync SYS_mincore
        SYS_map_shadow_stack SYS_mseal
        // Processes and threads
        SYS_clone SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid
        SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid
        SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
        SYS_capget SYS_getpriority SYS_prlimit64 SYS_getrlimit SYS_setrlimit SYS_getrusage
        SYS_times SYS_sysinfo SYS_uname SYS_getcpu SYS_futex SYS_futex_waitv SYS_futex_wake
        SYS_futex_wait SYS_futex_requeue SYS_set_robust_list SYS_get_robust_list
        SYS_set_tid_address SYS_rseq SYS_membarrier SYS_sched_yield SYS_sched_getaffinity
        SYS_sched_getparam SYS_sched_getscheduler SYS_sched_getattr SYS_sched_get_priority_max
        SYS_sched_get_priority_min SYS_sched_rr_get_interval
        // Signals
        SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
        SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo
        SYS_rt_sigsuspend SYS_sigaltstack SYS_signalfd4 SYS_restart_syscall
        // Time and waiting
        SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday
        SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime
        SYS_timer_getoverrun SYS_timer_delete SYS_timerfd_create SYS_timerfd_settime
        SYS_timerfd_gettime SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl
        SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
        // Randomness, and giving rights up
        SYS_getrandom SYS_prctl SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule
        SYS_landlock_restrict_self
    },
    x86_calls! {
        SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_dup2
        SYS_pipe SYS_fork SYS_vfork SYS_arch_prctl SYS_getpgrp SYS_alarm SYS_pause SYS_time
        SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_eventfd SYS_signalfd
    },
];

/// Changing the file system, and speaking with other processes of this guest.
const MINIMAL: [&[Call]; 2] = [
    calls! {
        SYS_mkdirat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_mknodat
        SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_truncate SYS_ftruncate
        SYS_utimensat SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs SYS_flock SYS_inotify_init1
        SYS_inotify_add_watch SYS_inotify_rm_watch SYS_getxattr SYS_lgetxattr SYS_fgetxattr
        SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr
        SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_setxattrat SYS_getxattrat
        SYS_listxattrat SYS_removexattrat
        // Unix sockets; which families there are is the filters' to say.
        SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect
        SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_shutdown SYS_sendto
        SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    },
    x86_calls! {
        SYS_mkdir SYS_rmdir SYS_unlink SYS_rename SYS_link SYS_symlink SYS_mknod SYS_chmod
        SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_inotify_init
    },
];

/// What databases, web servers and language runtimes use besides.
const STANDARD: [&[Call]; 2] = [
    calls! {
        // Between processes
        SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
        SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend
        SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr SYS_memfd_create SYS_memfd_secret
        SYS_pidfd_open SYS_pidfd_send_signal SYS_process_mrelease
        // Files in bulk
        SYS_io_setup SYS_io_submit SYS_io_getevents SYS_io_pgetevents SYS_io_cancel
        SYS_io_destroy SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_copy_file_range
        SYS_fallocate SYS_sync_file_range SYS_readahead SYS_cachestat
        // Memory
        SYS_mlock SYS_mlock2 SYS_mlockall SYS_munlock SYS_munlockall SYS_mbind SYS_get_mempolicy
        SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_remap_file_pages SYS_pkey_alloc
        SYS_pkey_free SYS_pkey_mprotect
        // Scheduling
        SYS_sched_setaffinity SYS_sched_setparam SYS_sched_setscheduler SYS_sched_setattr
        SYS_setpriority SYS_ioprio_get SYS_ioprio_set
        // Identity: without capabilities, only between ids that the process has.
        SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid
        SYS_setgroups SYS_setfsuid SYS_setfsgid SYS_capset SYS_personality
    },
    &[],
];

/// What no tier gives but `Unrestricted`: the system's own affairs, other processes, and
/// parts of the kernel that have let too many processes out.
const NEVER: [&[Call]; 2] = [
    calls! {
        // Mounts and roots
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_fsopen SYS_fsconfig SYS_fsmount
        SYS_fspick SYS_move_mount SYS_open_tree SYS_open_tree_attr SYS_mount_setattr
        SYS_name_to_handle_at SYS_open_by_handle_at SYS_quotactl SYS_quotactl_fd
        SYS_fanotify_init SYS_fanotify_mark
        // Namespaces
        SYS_unshare SYS_setns
        // Other processes
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp
        SYS_pidfd_getfd SYS_migrate_pages SYS_move_pages
        // Parts of the kernel
        SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter
        SYS_io_uring_register SYS_keyctl SYS_add_key SYS_request_key
        // The system
        SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load
        SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_syslog SYS_vhangup SYS_sethostname
        SYS_setdomainname SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime
    },
    x86_calls! {
        SYS_iopl SYS_ioperm SYS_modify_ldt
    },
];

/// The numbers as the C library's headers have them, and those that some of them lack.
#[expect(
    non_upper_case_globals,
    reason = "named as the C library names the others"
)]
mod numbers {
    use libc::c_long;
    pub use libc::*;

    #[cfg(target_arch = "x86_64")]
    pub const SYS_io_pgetevents: c_long = 333;
    #[cfg(target_arch = "aarch64")]
    pub const SYS_io_pgetevents: c_long = 292;
    #[cfg(target_arch = "aarch64")]
    pub const SYS_kexec_file_load: c_long = 294;
    // The same on every architecture.
    pub const SYS_cachestat: c_long = 451;
    pub const SYS_fchmodat2: c_long = 452;
    pub const SYS_map_shadow_stack: c_long = 453;
    pub const SYS_futex_wake: c_long = 454;
    pub const SYS_futex_wait: c_long = 455;
    pub const SYS_futex_requeue: c_long = 456;
    pub const SYS_setxattrat: c_long = 463;
    pub const SYS_getxattrat: c_long = 464;
    pub const SYS_listxattrat: c_long = 465;
    pub const SYS_removexattrat: c_long = 466;
    pub const SYS_open_tree_attr: c_long = 467;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpreter::{outcome, ALLOW, ENOSYS, EPERM};
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    const FILTERED: [Tier; 4] = [
        Tier::Essential,
        Tier::Minimal,
        Tier::Standard,
        Tier::Network,
    ];

    fn program(tier: Tier) -> &'static [sock_filter] {
        tier.program().unwrap()
    }

    fn all(groups: [&'static [Call]; 2]) -> impl Iterator<Item = Call> {
        groups.into_iter().flatten().copied()
    }

    /// The most that a call can get of a tier, whatever its arguments.
    fn best(tier: Tier, number: c_long) -> u32 {
        let arguments = [[0; 6], [1; 6], [u32::MAX; 6]];
        let outcomes = arguments.map(|arguments| outcome(program(tier), number, arguments));
        *outcomes.iter().max().unwrap()
    }

    #[test]
    fn a_call_is_allowed_from_its_tier_on_and_refused_below() {
        let groups = [ESSENTIAL, MINIMAL, STANDARD];
        let mut known = BTreeSet::new();
        for (level, group) in groups.into_iter().enumerate() {
            for (name, number) in all(group) {
                assert!(known.insert(number), "{name} is listed twice");
                for (at, tier) in FILTERED.into_iter().enumerate() {
                    let expected = if at >= level { ALLOW } else { EPERM };
                    assert_eq!(best(tier, number), expected, "{name} in {tier:?}");
                }
            }
        }
        for (name, number) in all(NEVER) {
            assert!(known.insert(number), "{name} is listed twice");
            for tier in FILTERED {
                assert_eq!(best(tier, number), EPERM, "{name} in {tier:?}");
            }
        }
        for number in (0..600).filter(|number| !known.contains(number)) {
            for tier in FILTERED {
                assert_eq!(best(tier, number), ENOSYS, "{number} in {tier:?}");
            }
        }
        assert!(Tier::Unrestricted.program().is_none());
    }

    #[test]
    fn clone3_is_unknown_so_that_c_libraries_fall_back_to_clone() {
        for tier in FILTERED {
            assert_eq!(outcome(program(tier), libc::SYS_clone3, [0; 6]), ENOSYS);
        }
    }

    #[test]
    fn a_clone_makes_threads_and_processes_but_no_namespace() {
        let threads = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_SETTLS
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_CLEARTID;
        for tier in FILTERED {
            let of = |flags: libc::c_int| {
                let arguments = [flags as u32, 0, 0, 0, 0, 0];
                outcome(program(tier), libc::SYS_clone, arguments)
            };
            assert_eq!(of(threads), ALLOW);
            assert_eq!(of(libc::CLONE_CHILD_SETTID | libc::SIGCHLD), ALLOW);
            for namespace in [
                libc::CLONE_NEWNS,
                libc::CLONE_NEWCGROUP,
                libc::CLONE_NEWUTS,
                libc::CLONE_NEWIPC,
                libc::CLONE_NEWUSER,
                libc::CLONE_NEWPID,
                libc::CLONE_NEWNET,
            ] {
                assert_eq!(of(namespace | libc::SIGCHLD), EPERM);
            }
        }
    }

    #[test]
    fn sockets_are_refused_by_their_family() {
        let allowed = |tier: Tier, family: libc::c_int| {
            let outcomes = [libc::SYS_socket, libc::SYS_socketpair]
                .map(|number| outcome(program(tier), number, [family as u32, 1, 0, 0, 0, 0]));
            assert_eq!(outcomes[0], outcomes[1]);
            outcomes[0] == ALLOW
        };
        for family in 0..64 {
            assert!(!allowed(Tier::Essential, family));
            assert_eq!(allowed(Tier::Minimal, family), family == libc::AF_UNIX);
            let ordinary = [
                libc::AF_UNIX,
                libc::AF_INET,
                libc::AF_INET6,
                libc::AF_NETLINK,
            ];
            assert_eq!(allowed(Tier::Standard, family), ordinary.contains(&family));
            assert_eq!(allowed(Tier::Network, family), family != libc::AF_VSOCK);
        }
    }

    #[test]
    fn no_terminal_can_be_typed_into_for_another() {
        for tier in FILTERED {
            let of =
                |request: u32| outcome(program(tier), libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
            assert_eq!(of(libc::TIOCGWINSZ as u32), ALLOW);
            assert_eq!(of(0x5412), EPERM, "TIOCSTI");
            assert_eq!(of(0x541c), EPERM, "TIOCLINUX");
        }
    }

    #[test]
    fn a_personality_can_be_asked_for_but_not_taken() {
        let of = |persona| {
            let arguments = [persona, 0, 0, 0, 0, 0];
            outcome(program(Tier::Standard), libc::SYS_personality, arguments)
        };
        assert_eq!(of(u32::MAX), ALLOW);
        assert_eq!(of(0), ALLOW);
        // READ_IMPLIES_EXEC
        assert_eq!(of(0x0040_0000), EPERM);
    }

    #[test]
    fn the_numbers_of_our_own_are_those_of_the_headers() {
        for (ours, theirs) in [
            (numbers::SYS_clone3, 435),
            (numbers::SYS_openat2, 437),
            (numbers::SYS_futex_waitv, 449),
            (numbers::SYS_mseal, 462),
        ] {
            assert_eq!(ours, theirs);
        }
    }

    /// What stands in backquotes in each section of the document, by the section's title.
    fn documented() -> Option<BTreeMap<String, BTreeSet<String>>> {
        // Tests may run elsewhere than they were built.
        let repository = std::env::var("MVM_REPOSITORY").map_or_else(
            |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
            PathBuf::from,
        );
        if !repository.join("flake.nix").exists() {
            return None;
        }
        let text = fs::read_to_string(repository.join("docs/confinement.md")).unwrap();
        let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines() {
            if line.starts_with('#') {
                section = line.trim_start_matches('#').trim().to_owned();
                continue;
            }
            let names = line.split('`').skip(1).step_by(2).map(str::to_owned);
            sections.entry(section.clone()).or_default().extend(names);
        }
        Some(sections)
    }

    #[test]
    fn the_document_lists_the_calls_that_each_tier_refuses() {
        let Some(documented) = documented() else {
            return eprintln!("SKIPPED: the crate stands alone, without the document");
        };
        for (title, group) in [
            ("Allowed from `minimal` on", MINIMAL),
            ("Allowed from `standard` on", STANDARD),
            ("Allowed by `unrestricted` alone", NEVER),
        ] {
            let listed: BTreeSet<&str> = documented[title].iter().map(String::as_str).collect();
            let table: BTreeSet<&str> = all(group)
                .map(|(name, _)| name.strip_prefix("SYS_").unwrap())
                .collect();
            if cfg!(target_arch = "x86_64") {
                assert_eq!(listed, table, "{title}");
            } else {
                assert!(listed.is_superset(&table), "{title}");
            }
        }
        for tier in [
            "essential",
            "minimal",
            "standard",
            "network",
            "unrestricted",
        ] {
            let quoted = format!("\"{tier}\"");
            assert!(serde_json::from_str::<Tier>(&quoted).is_ok());
            assert!(documented["The tiers"].contains(tier), "{tier}");
        }
    }
}
