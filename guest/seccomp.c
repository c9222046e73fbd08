#define _GNU_SOURCE
#include "seccomp.h"

#include "fatal.h"
#include "syscalls.h"
#include "tree.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "no system call table for this architecture"
#endif

#ifndef TIOCLINUX
#define TIOCLINUX 0x541C
#endif

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])
#define ALLOW SECCOMP_RET_ALLOW
#define REFUSE(error) (SECCOMP_RET_ERRNO | (error))
#define DONE SECCOMP_RET_ERRNO /* without an error, and without the call */

/* The flags of clone that make namespaces; CLONE_NEWTIME shares its bit with the exit signal. */
#define CLONE_NAMESPACES                                                                                  \
    ((unsigned)(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |              \
                CLONE_NEWPID | CLONE_NEWNET))

enum { AGENT_PID = 1, IOPRIO_WHO_USER = 3, PROGRAM_MAX = 1024, X32_BIT = 0x40000000, JUMP_MAX = 255, TYPE_MASK = 0xf };

static struct sock_filter program[PROGRAM_MAX];
static unsigned length;
static bool in_gvisor;

static void emit(unsigned code, uint32_t value, size_t if_true, size_t if_false)
{
    if (length == PROGRAM_MAX || if_true > JUMP_MAX || if_false > JUMP_MAX)
        fatal_because("seccomp", "filter too long", EXIT_LAUNCH_FAILED);
    program[length++] = (struct sock_filter){(uint16_t)code, (uint8_t)if_true, (uint8_t)if_false, value};
}

static void load(size_t offset)
{
    emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void give(uint32_t verdict)
{
    emit(BPF_RET | BPF_K, verdict, 0, 0);
}

/* Goes on when the loaded word equals `value`, else skips `instructions`. */
static void unless_equal_skip(uint32_t value, size_t instructions)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, value, 0, instructions);
}

static void give_if_equal(uint32_t value, uint32_t verdict)
{
    unless_equal_skip(value, 1);
    give(verdict);
}

/* Both machines are little-endian: the low word of an argument comes first. */
static void load_argument(size_t index)
{
    load(offsetof(struct seccomp_data, args) + 8 * index);
}

static void load_argument_high(size_t index)
{
    load(offsetof(struct seccomp_data, args) + 8 * index + 4);
}

/* Calls judged by their arguments. Each block ends in a verdict; `begin` skips it for other calls. */

static unsigned begin(int call)
{
    unless_equal_skip((uint32_t)call, 0);
    return length - 1;
}

static void end(unsigned start)
{
    unsigned skip = length - start - 1;
    if (skip > JUMP_MAX)
        fatal_because("seccomp", "block too long", EXIT_LAUNCH_FAILED);
    program[start].jf = (uint8_t)skip;
}

static void judge_clone(void)
{
    unsigned start = begin(SYS_clone);
    load_argument(0);
    emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_NAMESPACES, 0, 1);
    give(REFUSE(EPERM));
    give(ALLOW);
    end(start);
}

static void judge_ioctl(void)
{
    unsigned start = begin(SYS_ioctl);
    load_argument(1);
    give_if_equal(TIOCSTI, REFUSE(EPERM)); /* types into a terminal that somebody else reads */
    give_if_equal(TIOCLINUX, REFUSE(EPERM));
    give(ALLOW);
    end(start);
}

/* Streams and datagrams over TCP and UDP only: other protocols would load kernel modules. */
static void judge_inet(uint32_t family)
{
    unless_equal_skip(family, 13);
    load_argument(1);
    emit(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK, 0, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, SOCK_STREAM, 2, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, SOCK_DGRAM, 1, 0);
    give(REFUSE(EPERM));
    load_argument(2);
    give_if_equal(0, ALLOW);
    give_if_equal(IPPROTO_TCP, ALLOW);
    give_if_equal(IPPROTO_UDP, ALLOW);
    give(REFUSE(EPROTONOSUPPORT));
}

static void judge_socket(void)
{
    unsigned start = begin(SYS_socket);
    load_argument(0);
    give_if_equal(AF_UNIX, ALLOW);
    judge_inet(AF_INET);
    judge_inet(AF_INET6);
    unless_equal_skip(AF_NETLINK, 4);
    load_argument(2);
    give_if_equal(NETLINK_ROUTE, ALLOW); /* how libraries list interfaces; without capability it only reads */
    give(REFUSE(EPROTONOSUPPORT));
    give(REFUSE(EAFNOSUPPORT));
    end(start);

    start = begin(SYS_socketpair);
    load_argument(0);
    give_if_equal(AF_UNIX, ALLOW);
    give(REFUSE(EAFNOSUPPORT));
    end(start);
}

/* Skips the verdict that follows unless the argument is the agent's pid. */
static void give_for_agent(size_t index, uint32_t verdict)
{
    load_argument(index);
    give_if_equal(AGENT_PID, verdict);
}

/*
 * The limit that marks the processes of an EXEC is set with the agent's cookie only (see tree.h); the one that
 * keeps the host's core dump program from running stays, though whoever lowers it is told that it was done.
 */
static void judge_limits(void)
{
    uint64_t cookie = tree_cookie();
    unsigned start = begin(SYS_setrlimit);
    load_argument(0);
    give_if_equal(RLIMIT_CORE, DONE);
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)tree_resource(), 1, 0);
    give(ALLOW);
    load_argument(2);
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)cookie, 0, 3);
    load_argument_high(2);
    give_if_equal((uint32_t)(cookie >> 32), ALLOW);
    give(REFUSE(EPERM));
    end(start);

    start = begin(SYS_prlimit64);
    load_argument(2); /* a new limit, or NULL to read the old one */
    unless_equal_skip(0, 3);
    load_argument_high(2);
    give_if_equal(0, ALLOW);
    give_for_agent(0, REFUSE(EPERM));
    load_argument(1);
    give_if_equal(RLIMIT_CORE, DONE);
    give_if_equal((uint32_t)tree_resource(), REFUSE(EPERM));
    give(ALLOW);
    end(start);
}

/* Root inside has the agent's id, and the kernel would let it starve the agent. */
static void judge_scheduling(void)
{
    static const int of_one[] = {SYS_sched_setaffinity, SYS_sched_setparam, SYS_sched_setscheduler,
                                 SYS_sched_setattr};
    static const struct {
        int call;
        uint32_t of_user;
    } of_many[] = {{SYS_setpriority, PRIO_USER}, {SYS_ioprio_set, IOPRIO_WHO_USER}};
    for (size_t i = 0; i < LENGTH(of_one); i++) {
        unsigned start = begin(of_one[i]);
        give_for_agent(0, REFUSE(EPERM));
        give(ALLOW);
        end(start);
    }
    for (size_t i = 0; i < LENGTH(of_many); i++) {
        unsigned start = begin(of_many[i].call);
        load_argument(0);
        give_if_equal(of_many[i].of_user, REFUSE(EPERM));
        give_for_agent(1, REFUSE(EPERM));
        give(ALLOW);
        end(start);
    }
}

/* Nothing stands behind a device node that a guest makes in gVisor; but it would be let make one. */
static void judge_device_nodes(int call, size_t mode)
{
    unsigned start = begin(call);
    load_argument(mode);
    emit(BPF_ALU | BPF_AND | BPF_K, S_IFMT, 0, 0);
    give_if_equal(S_IFBLK, REFUSE(EPERM));
    give_if_equal(S_IFCHR, REFUSE(EPERM));
    give(ALLOW);
    end(start);
}

/* By what signals are sent to one process: its number comes first, that of a thread second. */
static void judge_signals(void)
{
    static const int sends[] = {SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};
    for (size_t i = 0; i < LENGTH(sends); i++) {
        unsigned start = begin(sends[i]);
        give_for_agent(0, DONE);
        if (sends[i] == SYS_tgkill || sends[i] == SYS_rt_tgsigqueueinfo)
            give_for_agent(1, DONE);
        give(ALLOW);
        end(start);
    }
}

/*
 * Linux judges a call after its tracer has had a hand in it, gVisor before: there a tracer may not stop anybody
 * on the way into a call, which is what strace does. All else that debuggers do is let through.
 */
static void judge_tracing(void)
{
    static const uint32_t stops[] = {PTRACE_SYSCALL, PTRACE_SYSEMU, PTRACE_SYSEMU_SINGLESTEP};
    unsigned start = begin(SYS_ptrace);
    load_argument_high(0);
    unless_equal_skip(0, LENGTH(stops) * 2 + 7);
    load_argument(0);
    for (size_t i = 0; i < LENGTH(stops); i++)
        give_if_equal(stops[i], REFUSE(EPERM));
    emit(BPF_JMP | BPF_JEQ | BPF_K, PTRACE_SETOPTIONS, 2, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, PTRACE_SEIZE, 1, 0);
    give(ALLOW);
    load_argument(3);
    emit(BPF_JMP | BPF_JSET | BPF_K, PTRACE_O_TRACESECCOMP, 1, 0);
    give(ALLOW);
    give(REFUSE(EPERM));
    end(start);
}

static void judge_personality(void)
{
    static const uint32_t harmless[] = {PER_LINUX, PER_LINUX32, 0xffffffff /* asks */};
    unsigned start = begin(SYS_personality);
    load_argument(0);
    for (size_t i = 0; i < LENGTH(harmless); i++)
        give_if_equal(harmless[i], ALLOW);
    give(REFUSE(EPERM));
    end(start);
}

/* All other calls: their numbers cut into ranges of one verdict, searched by halves. */

struct range {
    uint32_t first, verdict;
};

enum { RANGES_MAX = 2 * (LENGTH(allowed_calls) + LENGTH(refused_calls)) + 1 };

static int by_first(const void *left, const void *right)
{
    const struct range *a = left, *b = right;
    return a->first < b->first ? -1 : a->first > b->first;
}

static size_t cut_ranges(struct range *ranges)
{
    struct range calls[LENGTH(allowed_calls) + LENGTH(refused_calls)];
    size_t listed = 0, count = 0;
    for (size_t i = 0; i < LENGTH(allowed_calls); i++)
        calls[listed++] = (struct range){(uint32_t)allowed_calls[i], ALLOW};
    for (size_t i = 0; i < LENGTH(refused_calls); i++)
        calls[listed++] = (struct range){(uint32_t)refused_calls[i], REFUSE(EPERM)};
    qsort(calls, listed, sizeof calls[0], by_first);
    uint32_t next = 0;
    ranges[count++] = (struct range){0, REFUSE(ENOSYS)};
    for (size_t i = 0; i < listed; i++) {
        if (calls[i].first != next && ranges[count - 1].verdict != REFUSE(ENOSYS))
            ranges[count++] = (struct range){next, REFUSE(ENOSYS)};
        if (ranges[count - 1].first == calls[i].first)
            count--;
        if (!count || ranges[count - 1].verdict != calls[i].verdict)
            ranges[count++] = calls[i];
        next = calls[i].first + 1;
    }
    if (ranges[count - 1].verdict != REFUSE(ENOSYS))
        ranges[count++] = (struct range){next, REFUSE(ENOSYS)};
    return count;
}

static void emit_search(const struct range *ranges, size_t count)
{
    if (count == 1) {
        give(ranges[0].verdict);
        return;
    }
    size_t half = count / 2;
    /* The lower half of n ranges takes 2n - 1 instructions. */
    emit(BPF_JMP | BPF_JGE | BPF_K, ranges[half].first, 2 * half - 1, 0);
    emit_search(ranges, half);
    emit_search(ranges + half, count - half);
}

void seccomp_for_gvisor(void)
{
    in_gvisor = true;
}

void seccomp_prepare(void)
{
    struct range ranges[RANGES_MAX];
    length = 0;
    load(offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    give(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    emit(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    give(SECCOMP_RET_KILL_PROCESS);
#endif
    judge_clone();
    judge_ioctl();
    judge_socket();
    judge_limits();
    judge_scheduling();
    judge_personality();
    if (in_gvisor) {
        judge_signals();
        judge_tracing();
        judge_device_nodes(SYS_mknodat, 2);
#ifdef SYS_mknod
        judge_device_nodes(SYS_mknod, 1);
#endif
    }
    emit_search(ranges, cut_ranges(ranges));
}

void seccomp_install(void)
{
    if (!length)
        seccomp_prepare();
    struct sock_fprog filter = {.len = (unsigned short)length, .filter = program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
        fatal("seccomp");
}
