#define _GNU_SOURCE
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { MEMORY_BYTES = 65536, CODE_AT = 0x1000, INSTRUCTIONS = 4 * 65535, PS_MAX = 50 * 1000 };

/* In real mode: four times, count 65535 down; then halt. */
static const uint8_t code[] = {
    0xb8, 0x04, 0x00, /* mov ax, 4 */
    0xb9, 0xff, 0xff, /* mov cx, 65535 */
    0xe2, 0xfe,       /* loop to itself */
    0x48,             /* dec ax */
    0x75, 0xf8,       /* jnz to the mov of cx */
    0xf4,             /* hlt */
};

static int failed(const char *step)
{
    printf("kvm failed %s: %s\n", step, strerror(errno));
    return 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int place(int machine)
{
    uint8_t *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    memcpy(memory + CODE_AT, code, sizeof code);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES,
                                                 .userspace_addr = (uintptr_t)memory};
    return ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region);
}

static int enter(int processor)
{
    struct kvm_sregs segments;
    struct kvm_regs registers = {.rip = CODE_AT, .rflags = 2};
    if (ioctl(processor, KVM_GET_SREGS, &segments))
        return -1;
    segments.cs.base = segments.cs.selector = 0;
    return ioctl(processor, KVM_SET_SREGS, &segments) || ioctl(processor, KVM_SET_REGS, &registers);
}

int kvm_probe(void)
{
    int device = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return failed("/dev/kvm");
    int machine = ioctl(device, KVM_CREATE_VM, 0);
    if (machine < 0 || place(machine))
        return failed("machine");
    int processor = ioctl(machine, KVM_CREATE_VCPU, 0), size = ioctl(device, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (processor < 0 || size < (int)sizeof(struct kvm_run) || enter(processor))
        return failed("processor");
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, processor, 0);
    if (run == MAP_FAILED)
        return failed("processor");
    uint64_t before = now_ns();
    if (ioctl(processor, KVM_RUN, 0))
        return failed("run");
    uint64_t ps = (now_ns() - before) * 1000 / INSTRUCTIONS;
    if (run->exit_reason != KVM_EXIT_HLT) {
        printf("kvm failed run: exit reason %u instead of a halt\n", run->exit_reason);
        return 1;
    }
    if (ps > PS_MAX) {
        printf("kvm failed speed: %llu ns an instruction, it is emulated\n", (unsigned long long)ps / 1000);
        return 1;
    }
    printf("kvm ok %llu\n", (unsigned long long)ps);
    return 0;
}
