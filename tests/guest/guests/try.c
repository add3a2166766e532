/* Makes the system calls that its arguments name, and prints a line `NAME ERRNO` for each; 0 is success. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static long attempt(const char *name) {
    char path[64];

    if (!strcmp(name, "mkdir")) {
        snprintf(path, sizeof path, "/tmp/try-%d", (int)getpid());
        return mkdir(path, 0700);
    }
    if (!strcmp(name, "unix"))
        return socket(AF_UNIX, SOCK_STREAM, 0);
    if (!strcmp(name, "inet"))
        return socket(AF_INET, SOCK_STREAM, 0);
    if (!strcmp(name, "netlink"))
        return socket(AF_NETLINK, SOCK_RAW, 0);
    if (!strcmp(name, "packet"))
        return socket(AF_PACKET, SOCK_RAW, 0);
    if (!strcmp(name, "vsock"))
        return socket(AF_VSOCK, SOCK_STREAM, 0);
    if (!strcmp(name, "clone3"))
        return syscall(SYS_clone3, NULL, 0);
    if (!strcmp(name, "unshare"))
        return unshare(CLONE_NEWUSER);
    if (!strcmp(name, "mount"))
        return mount("none", "/tmp", "tmpfs", 0, NULL);
    if (!strcmp(name, "ptrace"))
        return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    errno = EINVAL;
    return -1;
}

int main(int count, char **names) {
    for (int at = 1; at < count; at++) {
        errno = 0;
        printf("%s %d\n", names[at], attempt(names[at]) < 0 ? errno : 0);
    }
    return 0;
}
