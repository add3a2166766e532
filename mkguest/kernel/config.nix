# What the guest kernel is configured with: the options that differ from `make allnoconfig`, and the
# few that are named as "n" because something would otherwise switch them on or because leaving them
# out is a promise. It starts from Firecracker's kernel policy (docs/kernel-policy.md and
# resources/guest_configs there) and leaves away whatever a microVM of one tenant does not have.
#
# A value is "y", "n", a number, or any other string for a string option. There is no "m".
{
  common = {
    # Without EXPERT most options below could not be left out. The release is the plain version
    # number, so that it depends on the source alone.
    EXPERT = "y";
    LOCALVERSION = "";
    LOCALVERSION_AUTO = "n";

    # Services are databases and language runtimes: speed counts more than the some 10 % of text
    # that -Os would save.
    CC_OPTIMIZE_FOR_PERFORMANCE = "y";
    JUMP_LABEL = "y";

    # Nothing is loaded, replaced or handed over after the start, and physical memory is out of
    # everybody's reach.
    MODULES = "n";
    KEXEC = "n";
    BLK_DEV_INITRD = "n";
    DEVMEM = "n";
    DEVPORT = "n";

    # Processors and time. 32 is the most that Firecracker gives to a guest.
    SMP = "y";
    NR_CPUS = 32;
    PREEMPT_NONE = "y";
    HZ_250 = "y";
    NO_HZ_IDLE = "y";
    HIGH_RES_TIMERS = "y";
    POSIX_TIMERS = "y";

    # System calls that libc, PostgreSQL, Python and Node use. io_uring, userfaultfd and bpf are
    # left out: no service needs them and they are where kernels break.
    MULTIUSER = "y";
    SYSVIPC = "y";
    POSIX_MQUEUE = "y";
    FUTEX = "y";
    FUTEX_PI = "y";
    EPOLL = "y";
    EVENTFD = "y";
    SIGNALFD = "y";
    TIMERFD = "y";
    AIO = "y";
    INOTIFY_USER = "y";
    FHANDLE = "y";
    FILE_LOCKING = "y";
    ADVISE_SYSCALLS = "y";
    MEMBARRIER = "y";
    RSEQ = "y";
    SYSCTL = "y";
    IO_URING = "n";
    USERFAULTFD = "n";
    BPF_SYSCALL = "n";
    COMPAT_32BIT_TIME = "n";

    BINFMT_ELF = "y";
    BINFMT_SCRIPT = "y";
    COREDUMP = "n";

    # Memory. Huge pages are for who asks for them (madvise); the balloon gives memory back.
    SHMEM = "y";
    SLAB_MERGE_DEFAULT = "y";
    SLUB_CPU_PARTIAL = "y";
    SPARSEMEM_VMEMMAP = "y";
    COMPACTION = "y";
    TRANSPARENT_HUGEPAGE = "y";
    TRANSPARENT_HUGEPAGE_MADVISE = "y";
    VM_EVENT_COUNTERS = "y";
    BALLOON_COMPACTION = "y";
    SWAP = "n";

    # Confinement of services: cgroups 2 with memory, pids and cpu (freeze and kill are its core),
    # namespaces, seccomp, whose filters run at every system call and so are compiled.
    CGROUPS = "y";
    MEMCG = "y";
    CGROUP_PIDS = "y";
    CGROUP_SCHED = "y";
    FAIR_GROUP_SCHED = "y";
    CFS_BANDWIDTH = "y";
    NAMESPACES = "y";
    UTS_NS = "y";
    IPC_NS = "y";
    USER_NS = "y";
    PID_NS = "y";
    NET_NS = "y";
    SECCOMP = "y";
    SECCOMP_FILTER = "y";
    BPF_JIT = "y";

    # Hardening that costs little. The kernel log is root's alone. An oops ends the guest, and the
    # VMM with it, instead of leaving a damaged kernel running.
    STACKPROTECTOR = "y";
    STACKPROTECTOR_STRONG = "y";
    VMAP_STACK = "y";
    STRICT_KERNEL_RWX = "y";
    HARDENED_USERCOPY = "y";
    FORTIFY_SOURCE = "y";
    SLAB_FREELIST_HARDENED = "y";
    SLAB_FREELIST_RANDOM = "y";
    SECURITY_DMESG_RESTRICT = "y";
    CPU_MITIGATIONS = "y";
    PANIC_ON_OOPS = "y";
    PANIC_TIMEOUT = -1;

    # What the console shows. Names of functions in a trace are worth their 200 KiB; the log
    # buffer holds a boot several times, since the agent looks there for the start of /init.
    PRINTK = "y";
    PRINTK_TIME = "y";
    BUG = "y";
    KALLSYMS = "y";
    LOG_BUF_SHIFT = 16;
    CONSOLE_LOGLEVEL_DEFAULT = 6;
    TTY = "y";
    UNIX98_PTYS = "y";
    LEGACY_PTYS = "n";
    SERIAL_8250 = "y";
    SERIAL_8250_CONSOLE = "y";
    SERIAL_8250_NR_UARTS = 1;
    SERIAL_8250_RUNTIME_UARTS = 1;
    SERIAL_8250_DEPRECATED_OPTIONS = "n";

    # The devices that a VMM gives, all over MMIO. The guest has one vsock peer, its host: a
    # loopback would let a service speak to the agent.
    VIRTIO_MENU = "y";
    VIRTIO_MMIO = "y";
    VIRTIO_BALLOON = "y";
    BLK_DEV = "y";
    VIRTIO_BLK = "y";
    NETDEVICES = "y";
    NET_CORE = "y";
    VIRTIO_NET = "y";
    VSOCKETS = "y";
    VIRTIO_VSOCKETS = "y";
    VSOCKETS_LOOPBACK = "n";
    HW_RANDOM = "y";
    HW_RANDOM_VIRTIO = "y";

    # A clone of a snapshot learns that it is one, and gets the time from its host.
    VIRT_DRIVERS = "y";
    VMGENID = "y";
    PTP_1588_CLOCK = "y";
    PTP_1588_CLOCK_KVM = "y";
    RTC_CLASS = "y";
    RTC_HCTOSYS = "y";

    # Drives hold filesystems and no partitions: with PARTITION_ADVANCED no table is looked for.
    # Nobody writes beneath a mounted filesystem.
    BLOCK = "y";
    PARTITION_ADVANCED = "y";
    MSDOS_PARTITION = "n";
    EFI_PARTITION = "n";
    BLK_DEV_WRITE_MOUNTED = "n";

    # dm-verity below the squashfs root, set up from the command line without an initrd.
    MD = "y";
    BLK_DEV_DM = "y";
    DM_VERITY = "y";
    DM_INIT = "y";
    CRYPTO = "y";
    CRYPTO_SHA256 = "y";
    CRYPTO_MANAGER_DISABLE_TESTS = "y";

    # Filesystems. Squashfs decompresses on every processor at once, with buffers made on demand.
    DEVTMPFS = "y";
    DEVTMPFS_MOUNT = "y";
    DEVTMPFS_SAFE = "y";
    PROC_FS = "y";
    PROC_SYSCTL = "y";
    PROC_PAGE_MONITOR = "y";
    SYSFS = "y";
    TMPFS = "y";
    TMPFS_POSIX_ACL = "y";
    TMPFS_XATTR = "y";
    EXT4_FS = "y";
    EXT4_FS_POSIX_ACL = "y";
    MISC_FILESYSTEMS = "y";
    SQUASHFS = "y";
    SQUASHFS_FILE_DIRECT = "y";
    SQUASHFS_COMPILE_DECOMP_MULTI = "y";
    SQUASHFS_XATTR = "y";
    SQUASHFS_LZ4 = "y";
    SQUASHFS_ZLIB = "n";
    OVERLAY_FS = "y";

    # Networks. Packet sockets are for the DHCP client; IP_PNP reads `ip=`.
    NET = "y";
    UNIX = "y";
    PACKET = "y";
    INET = "y";
    IP_MULTICAST = "y";
    IP_PNP = "y";
    IP_PNP_DHCP = "y";
    SYN_COOKIES = "y";
    IPV6 = "y";
    ETHERNET = "n";
    WIRELESS = "n";
  };

  x86_64 = {
    CPU_SUP_INTEL = "y";
    CPU_SUP_AMD = "y";
    PROCESSOR_SELECT = "y";
    X86_X2APIC = "y";
    MTRR = "y";
    X86_PAT = "y";

    # Firecracker and QEMU start the ELF kernel at its PVH or its 64-bit entry, where it was linked
    # to be: they never run the decompressor, which alone could move it.
    HYPERVISOR_GUEST = "y";
    PARAVIRT = "y";
    PARAVIRT_SPINLOCKS = "y";
    KVM_GUEST = "y";
    PVH = "y";
    RELOCATABLE = "n";

    # Devices and processors are found by ACPI, or, with acpi=off, by the command line and the
    # MP table. There is no PCI bus, but without PCI's code Linux refuses to initialise ACPI
    # (evhandler.c installs a handler for PCI's configuration space that is then missing).
    ACPI = "y";
    PCI = "y";

    # Where ACPI says that the hardware is reduced, it alone gives the console its interrupt:
    # without this, the kernel's own lines are all that ever shows.
    SERIAL_8250_PNP = "y";
    VIRTIO_MMIO_CMDLINE_DEVICES = "y";
    X86_MPPARSE = "y";
    RTC_DRV_CMOS = "y";

    # Firecracker's SendCtrlAltDel is three keys of an AT keyboard, which the console's keyboard
    # handler turns into the signal to init.
    VT = "y";
    VT_CONSOLE = "n";
    INPUT = "y";
    INPUT_KEYBOARD = "y";
    KEYBOARD_ATKBD = "y";
    SERIO = "y";
    SERIO_I8042 = "y";

    # Programs are 64-bit and not older than 2011.
    IA32_EMULATION = "n";
    X86_X32_ABI = "n";
    MODIFY_LDT_SYSCALL = "n";
    X86_VSYSCALL_EMULATION = "n";

    X86_UMIP = "y";
    X86_KERNEL_IBT = "y";
    MITIGATION_PAGE_TABLE_ISOLATION = "y";
    MITIGATION_RETPOLINE = "y";
    MITIGATION_RETHUNK = "y";
    MITIGATION_UNRET_ENTRY = "y";
    MITIGATION_IBPB_ENTRY = "y";
    MITIGATION_IBRS_ENTRY = "y";
    MITIGATION_SRSO = "y";
    MITIGATION_GDS = "y";
    MITIGATION_RFDS = "y";
    MITIGATION_SPECTRE_BHI = "y";
    MITIGATION_MDS = "y";
    MITIGATION_TAA = "y";
    MITIGATION_MMIO_STALE_DATA = "y";
    MITIGATION_L1TF = "y";
    MITIGATION_RETBLEED = "y";
    MITIGATION_SPECTRE_V1 = "y";
    MITIGATION_SPECTRE_V2 = "y";
    MITIGATION_SRBDS = "y";
    MITIGATION_SSB = "y";
    MITIGATION_ITS = "y";
    MITIGATION_TSA = "y";

    # A trace that guesses needs neither frame pointers in every function nor ORC's tables, which
    # would take a megabyte of every guest.
    UNWINDER_GUESS = "y";

    CRYPTO_SHA256_SSSE3 = "y";
    CRYPTO_CRC32C_INTEL = "y";
  };

  aarch64 = {
    ARM64_4K_PAGES = "y";
    ARM64_VA_BITS_48 = "y";
    PARAVIRT = "y";
    RELOCATABLE = "n";

    # Firecracker gives an 8250 in the device tree and a PL031; QEMU's `virt` a PL011.
    SERIAL_OF_PLATFORM = "y";
    SERIAL_AMBA_PL011 = "y";
    SERIAL_AMBA_PL011_CONSOLE = "y";
    RTC_DRV_PL031 = "y";

    # What the processors of the clouds (Neoverse N1, V1, V2) offer, and what is wrong with them.
    ARM64_HW_AFDBM = "y";
    ARM64_PAN = "y";
    ARM64_LSE_ATOMICS = "y";
    ARM64_USE_LSE_ATOMICS = "y";
    ARM64_CNP = "y";
    ARM64_PTR_AUTH = "y";
    ARM64_BTI = "y";
    ARM64_E0PD = "y";
    ARM64_SVE = "y";
    ARM64_TAGGED_ADDR_ABI = "y";
    UNMAP_KERNEL_AT_EL0 = "y";
    MITIGATE_SPECTRE_BRANCH_HISTORY = "y";
    RODATA_FULL_DEFAULT_ENABLED = "y";
    ARM64_ERRATUM_1165522 = "y";
    ARM64_ERRATUM_1286807 = "y";
    ARM64_ERRATUM_1463225 = "y";
    ARM64_ERRATUM_1542419 = "y";
    ARM64_ERRATUM_2054223 = "y";
    ARM64_ERRATUM_2067961 = "y";
    ARM64_ERRATUM_3194386 = "y";

    CRYPTO_SHA256_ARM64 = "y";
    CRYPTO_SHA2_ARM64_CE = "y";
  };
}
